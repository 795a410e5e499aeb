/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The stress test of the guest page cache: the VMM's side of the places that hold the
 * records, and the pages that were taken away from them.
 *
 * Around its record a place is poisoned, and so are the pages before it in the
 * VMM's memory, the ballast.  A page that was taken away from a place is poisoned
 * once the system call has returned that took it, and stays with the VMM for some
 * time: moved to another address, or at another offset of the file, or freed and,
 * as likely as not, allocated again for what the VMM touches next.  No byte of poison
 * may ever change.
 */
#ifndef SELFTEST_KVM_GPC_STRESS_PLACES_H
#define SELFTEST_KVM_GPC_STRESS_PLACES_H

#include <pthread.h>

#include "gpc_stress.h"

#define PLACE_PAGES	2
#define PLACE_SIZE	(PLACE_PAGES * PAGE_SIZE)

/* In guest memory: room for the place to move up by its size. */
#define PLACE_GPA(id)	(GPC_GPA + (id) * 2 * PLACE_SIZE)
#define AWAY		PLACE_SIZE

/*
 * In the VMM's: a huge page's worth, in which each place has its ballast.  The longer
 * an invalidation takes to get from the start of its range to the record, the more
 * can go wrong in between.
 */
#define AREA_SIZE	(2ul << 20)
#define BALLAST_SIZE	(16 * PAGE_SIZE)
#define AREA_OFFSET(id)	((id) * 2 * BALLAST_SIZE + BALLAST_SIZE)

/* What a thread keeps of pages that were taken away, and as spare ones. */
#define YARD_PAGES	16
#define YARD_SIZE	(YARD_PAGES * PAGE_SIZE)
#define MAX_CHANGERS	8

struct place {
	int id;
	enum kind kind;
	int vcpu;
	bool anon;		/* memory of the VMM's own; else a file's */
	bool two_slots;		/* a memslot for each page */

	pthread_mutex_t lock;	/* protects what follows, and held while disturbed */
	void *hva;
	off_t file[PLACE_PAGES];
	size_t offset;		/* of the record */
	bool by_hva;		/* the record is bound to its user address */
	uint32_t flags;		/* of the memslots */
};

/* What KVM writes of each kind, from the address that it is told. */
static const struct {
	size_t start, end;
} records[] = {
	[KVMCLOCK]	= { 0, sizeof(struct pvclock_vcpu_time_info) },
	[TIME_INFO]	= { 0, sizeof(struct pvclock_vcpu_time_info) },
	[VCPU_INFO]	= { 0, sizeof(struct xen_vcpu_info) },
	[RUNSTATE]	= { 0, sizeof(struct xen_runstate) },
	[SHARED_INFO]	= { offsetof(struct xen_shared_info, pending),
			    sizeof(struct xen_shared_info) },
};

/* A thread that changes things, and its own memory to do it with. */
struct changer {
	pthread_t thread;
	const struct change *changes;
	unsigned int seed;
	void *diversion;		/* PLACE_SIZE of memory that nobody looks at */
	uint8_t *yard;			/* poisoned pages */
	off_t spare[YARD_PAGES];	/* poisoned pages of the file */
	unsigned int next;		/* in both, the one that is longest there */
	uint64_t done[8];		/* how many of each */
};

static struct vmm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu[NR_VCPUS];
	struct stress *guest;		/* the guest's copy of it */
	struct place place[NR_PLACES];
	void *area[2];
	int file;
	void *alias;			/* of the whole file */

	pthread_mutex_t lock;
	pthread_cond_t has_run;
	uint64_t runs[NR_VCPUS];	/* returns of KVM_RUN */

	pthread_mutex_t era_lock;
	uint64_t era;			/* that KVM_SET_CLOCK has begun last */

	struct changer changer[MAX_CHANGERS];
	int nr_changers;
	int migrations_left;		/* that spoil a page each */
} vmm = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.has_run = PTHREAD_COND_INITIALIZER,
	.era_lock = PTHREAD_MUTEX_INITIALIZER,
};

static void *vmm_map(void *at, size_t size, int flags, int fd, off_t off)
{
	void *mem = mmap(at, size, PROT_READ | PROT_WRITE, flags | (at ? MAP_FIXED : 0),
			 fd, off);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	return mem;
}

#define SYSCALL_OK(call)						\
do {									\
	long _r = (long)(call);						\
									\
	TEST_ASSERT(_r != -1, "%s: %s", #call, strerror(errno));	\
} while (0)

/*
 * Progress
 */

static void note_run(int vcpu)
{
	pthread_mutex_lock(&vmm.lock);
	vmm.runs[vcpu]++;
	pthread_cond_broadcast(&vmm.has_run);
	pthread_mutex_unlock(&vmm.lock);
}

/* For something that a vCPU does in time.  They run until all other threads are done. */
static void wait_a_run(void)
{
	pthread_mutex_lock(&vmm.lock);
	pthread_cond_wait(&vmm.has_run, &vmm.lock);
	pthread_mutex_unlock(&vmm.lock);
}

/* Until each vCPU has returned from a run that it has yet to begin. */
static void wait_new_runs(void)
{
	uint64_t until[NR_VCPUS];
	int i;

	pthread_mutex_lock(&vmm.lock);
	for (i = 0; i < NR_VCPUS; i++)
		until[i] = vmm.runs[i] + 2;
	for (i = 0; i < NR_VCPUS; i++)
		while (vmm.runs[i] < until[i])
			pthread_cond_wait(&vmm.has_run, &vmm.lock);
	pthread_mutex_unlock(&vmm.lock);
}

static int send_event(int vcpu, int port)
{
	struct kvm_irq_routing_xen_evtchn event = {
		.port = port_of(vcpu, port),
		.vcpu = vcpu,
		.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};

	return __vm_ioctl(vmm.vm, KVM_XEN_HVM_EVTCHN_SEND, &event);
}

/*
 * Places
 */

static uint32_t vmm_seq(int place)
{
	return __atomic_load_n(&vmm.guest->place[place].seq, __ATOMIC_SEQ_CST);
}

static bool vmm_undisturbed(int place, uint32_t seq)
{
	return !(seq & 1) && vmm_seq(place) == seq;
}

static void *page_of(const struct place *p, int k)
{
	return p->hva + k * PAGE_SIZE;
}

static void *ballast_of(const struct place *p)
{
	return p->hva - BALLAST_SIZE;
}

/* How far it is from there to the end of page @k. */
static size_t ballast_to(int k)
{
	return BALLAST_SIZE + (k + 1) * PAGE_SIZE;
}

/* The part of page @k that is not the record's: before it, and behind it. */
static void around(const struct place *p, int k, size_t *before, size_t *behind)
{
	size_t start = p->offset + records[p->kind].start;
	size_t end = p->offset + records[p->kind].end;
	size_t page = k * PAGE_SIZE, page_end = page + PAGE_SIZE;

	*before = clamp(start, page, page_end) - page;
	*behind = clamp(end, page, page_end) - page;
	if (*before == PAGE_SIZE || !*behind)
		*before = *behind = PAGE_SIZE;
}

static void poison_around(const struct place *p, int k, void *page)
{
	size_t before, behind;

	around(p, k, &before, &behind);
	memset(page, GPC_POISON, before);
	memset(page + behind, GPC_POISON, PAGE_SIZE - behind);
}

/* A page for a place: nothing in it. */
static void make_page(const struct place *p, int k, void *page)
{
	size_t before, behind;

	around(p, k, &before, &behind);
	memset(page + before, 0, behind - before);
	poison_around(p, k, page);
}

static void assert_around(const struct place *p)
{
	size_t before, behind;
	int k;

	for (k = 0; k < PLACE_PAGES; k++) {
		void *page = page_of(p, k);

		around(p, k, &before, &behind);
		TEST_ASSERT(gpc_is_poison(page, before) &&
			    gpc_is_poison(page + behind, PAGE_SIZE - behind),
			    "place %d: written to around the record", p->id);
	}
	TEST_ASSERT(gpc_is_poison(ballast_of(p), BALLAST_SIZE),
		    "place %d: written to before the place", p->id);
}

/* As Xen does when the guest moves its vCPU info: whatever is there is looked at. */
static void raise_upcall(const struct place *p)
{
	struct xen_vcpu_info *vinfo = p->hva + p->offset;

	if (p->kind != VCPU_INFO)
		return;
	__atomic_store_n(&vinfo->pending_sel, ~0ull, __ATOMIC_SEQ_CST);
	__atomic_store_n(&vinfo->upcall_pending, 1, __ATOMIC_SEQ_CST);
}

static void disturb(struct place *p)
{
	int i;

	pthread_mutex_lock(&p->lock);
	assert_around(p);
	__atomic_fetch_add(&vmm.guest->place[p->id].seq, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < NR_VCPUS; i++)
		if (p->kind == SHARED_INFO || (p->kind == VCPU_INFO && p->vcpu == i))
			while (__atomic_load_n(&vmm.guest->vcpu[i].taking, __ATOMIC_SEQ_CST))
				wait_a_run();
}

static void settle(struct place *p)
{
	int k;

	for (k = 0; k < PLACE_PAGES; k++)
		poison_around(p, k, page_of(p, k));
	raise_upcall(p);
	vmm.guest->place[p->id].gva = PLACE_GPA(p->id) + p->offset;
	__atomic_fetch_add(&vmm.guest->place[p->id].seq, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&p->lock);
}

/* Give KVM every reason to write to the place. */
static void provoke(const struct place *p)
{
	if (p->kind == SHARED_INFO || p->kind == VCPU_INFO)
		(void)send_event(p->vcpu, NOISE_PORT);
	wait_new_runs();
}

/* KVM has no business there any more: poison it, and see. */
static void assert_left_alone(const struct place *p, void *mem, size_t size)
{
	memset(mem, GPC_POISON, size);
	provoke(p);
	TEST_ASSERT(gpc_is_poison(mem, size), "place %d: still written to", p->id);
}

static bool rarely(struct changer *c, int n)
{
	return !(rand_r(&c->seed) % n);
}

/* A page with a part of the record. */
static int pick_page(struct changer *c, const struct place *p)
{
	int first = p->offset / PAGE_SIZE;
	int last = (p->offset + records[p->kind].end - 1) / PAGE_SIZE;

	return rarely(c, 2) ? first : last;
}

/*
 * Pages that were taken away
 */

static uint8_t *yard_next(struct changer *c)
{
	uint8_t *page = c->yard + c->next * PAGE_SIZE;

	TEST_ASSERT(gpc_is_poison(page, PAGE_SIZE), "Written to: a page taken away");
	return page;
}

static void *spare_next(struct changer *c)
{
	void *page = vmm.alias + c->spare[c->next];

	TEST_ASSERT(gpc_is_poison(page, PAGE_SIZE), "Written to: a page taken out of the file");
	return page;
}

static void yard_advance(struct changer *c)
{
	c->next = (c->next + 1) % YARD_PAGES;
}

static void assert_yard(struct changer *c)
{
	int i;

	for (i = 0; i < YARD_PAGES; i++) {
		yard_next(c);
		spare_next(c);
		yard_advance(c);
	}
}

#endif /* SELFTEST_KVM_GPC_STRESS_PLACES_H */
