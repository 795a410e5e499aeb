/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The stress test of the guest page cache: the places of the records, and all that
 * a VMM can do to them.  See gpc_stress.h for what the guest may see of it.
 *
 * Around its record a place is poisoned, and so are the pages before it in the
 * VMM's memory, the ballast.  A page that was taken away from a place is poisoned
 * once the system call has returned that took it, and stays with the VMM for some
 * time: moved to another address, or at another offset of the file, or freed and,
 * as likely as not, allocated again for what the VMM touches next.  No byte of poison
 * may ever change.
 */
#ifndef SELFTEST_KVM_GPC_PLACES_H
#define SELFTEST_KVM_GPC_PLACES_H

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/falloc.h>
#include <linux/mempolicy.h>

#include "gpc_stress.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

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
	uint8_t *yard;			/* poisoned pages */
	off_t spare[YARD_PAGES];	/* poisoned pages of the file */
	unsigned int next;		/* in both, the one that is longest there */
	uint64_t done[16];
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
		.port = port, .vcpu = vcpu,
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

/* The part of page @k that is not the record's: before it, and behind it. */
static void around(const struct place *p, int k, size_t *before, size_t *behind)
{
	size_t start = p->offset + records[p->kind].start;
	size_t end = p->offset + records[p->kind].end;
	size_t page = k * PAGE_SIZE;

	*before = clamp(start, page, page + PAGE_SIZE) - page;
	*behind = clamp(end, page, page + PAGE_SIZE) - page;
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
		void *page = p->hva + k * PAGE_SIZE;

		around(p, k, &before, &behind);
		TEST_ASSERT(gpc_is_poison(page, before) &&
			    gpc_is_poison(page + behind, PAGE_SIZE - behind),
			    "place %d: written to around the record", p->id);
	}
	TEST_ASSERT(gpc_is_poison(p->hva - BALLAST_SIZE, BALLAST_SIZE),
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
		poison_around(p, k, p->hva + k * PAGE_SIZE);
	raise_upcall(p);
	vmm.guest->place[p->id].gva = PLACE_GPA(p->id) + p->offset;
	__atomic_fetch_add(&vmm.guest->place[p->id].seq, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&p->lock);
}

/* Give KVM every reason to write to the place. */
static void provoke(const struct place *p)
{
	if (p->kind == SHARED_INFO || p->kind == VCPU_INFO)
		(void)send_event(p->vcpu, NOISE_PORT(p->vcpu));
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

static void *page_of(const struct place *p, int k)
{
	return p->hva + k * PAGE_SIZE;
}

/* From the start of the ballast to the end of page @k. */
#define wide_range(p, k)	(p)->hva - BALLAST_SIZE, BALLAST_SIZE + ((k) + 1) * PAGE_SIZE

static void fill_ballast(const struct place *p)
{
	memset(p->hva - BALLAST_SIZE, GPC_POISON, BALLAST_SIZE);
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

/*
 * Changes of what backs a place that is disturbed.  Each returns whether it applies.
 */

/* The page lives on at another address; the place has an empty one. */
static bool move_page_out(struct changer *c, struct place *p)
{
	int k = pick_page(c, p);
	uint8_t *yard;

	if (!p->anon)
		return false;

	yard = yard_next(c);
	SYSCALL_OK(mremap(page_of(p, k), PAGE_SIZE, PAGE_SIZE,
			  MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, yard));
	memset(yard, GPC_POISON, PAGE_SIZE);
	if (rarely(c, 16))
		assert_left_alone(p, yard, PAGE_SIZE);
	yard_advance(c);
	return true;
}

/* The page goes back to the kernel, and from there probably into the yard. */
static bool move_page_in(struct changer *c, struct place *p)
{
	int k = pick_page(c, p);
	uint8_t *yard;

	if (!p->anon)
		return false;

	yard = yard_next(c);
	make_page(p, k, yard);
	SYSCALL_OK(mremap(yard, PAGE_SIZE, PAGE_SIZE,
			  MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, page_of(p, k)));
	memset(yard, GPC_POISON, PAGE_SIZE);
	yard_advance(c);
	return true;
}

/* To the kernel, and probably into the ballast. */
static bool drop_page(struct changer *c, struct place *p)
{
	int k = pick_page(c, p);

	if (!p->anon)
		return false;

	SYSCALL_OK(madvise(wide_range(p, k), MADV_DONTNEED));
	fill_ballast(p);
	return true;
}

static bool map_over(struct changer *c, struct place *p)
{
	int k = pick_page(c, p);
	uint8_t *spare;
	off_t old;

	if (p->anon) {
		SYSCALL_OK(mmap(wide_range(p, k), PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		fill_ballast(p);
	} else {
		spare = spare_next(c);
		make_page(p, k, spare);
		vmm_map(page_of(p, k), PAGE_SIZE, MAP_SHARED, vmm.file, c->spare[c->next]);

		/* The file keeps the page. */
		old = p->file[k];
		p->file[k] = c->spare[c->next];
		c->spare[c->next] = old;
		memset(vmm.alias + old, GPC_POISON, PAGE_SIZE);
		if (rarely(c, 16))
			assert_left_alone(p, vmm.alias + old, PAGE_SIZE);
		yard_advance(c);
	}
	return true;
}

/* The file loses the page; the kernel gets it, then probably the yard. */
static bool punch_hole(struct changer *c, struct place *p)
{
	int k = pick_page(c, p);
	uint8_t *yard;

	if (p->anon)
		return false;

	yard = yard_next(c);
	SYSCALL_OK(madvise(yard, PAGE_SIZE, MADV_DONTNEED));
	SYSCALL_OK(fallocate(vmm.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			     p->file[k], PAGE_SIZE));
	memset(yard, GPC_POISON, PAGE_SIZE);
	yard_advance(c);
	return true;
}

static bool protect(struct changer *c, struct place *p)
{
	int k = pick_page(c, p);
	uint8_t copy[PAGE_SIZE];

	if (p->anon) {
		SYSCALL_OK(mprotect(wide_range(p, k), PROT_READ));
		if (rarely(c, 16)) {
			memcpy(copy, page_of(p, k), PAGE_SIZE);
			provoke(p);
			TEST_ASSERT(!memcmp(copy, page_of(p, k), PAGE_SIZE),
				    "place %d: written to while read-only", p->id);
		}
	} else {
		SYSCALL_OK(mprotect(wide_range(p, k), PROT_NONE));
		if (rarely(c, 16)) {
			assert_left_alone(p, vmm.alias + p->file[k], PAGE_SIZE);
			make_page(p, k, vmm.alias + p->file[k]);
		}
	}
	SYSCALL_OK(mprotect(wide_range(p, k), PROT_READ | PROT_WRITE));
	return true;
}

/*
 * Changes of what backs a place of which nothing can be seen.
 */

/* The child has the page as it was, and must keep it so. */
static bool copy_on_write(struct changer *c, struct place *p)
{
	int pipefd[2], status;
	uint8_t copy[PLACE_SIZE];
	pid_t pid;
	char byte = 0;

	if (!p->anon)
		return false;

	SYSCALL_OK(pipe(pipefd));
	pid = fork();
	SYSCALL_OK(pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		memcpy(copy, p->hva, PLACE_SIZE);
		if (read(pipefd[0], &byte, 1) != 1)
			_exit(2);
		_exit(!!memcmp(copy, p->hva, PLACE_SIZE));
	}

	provoke(p);
	TEST_ASSERT(write(pipefd[1], &byte, 1) == 1, "Cannot write to the child");
	TEST_ASSERT(waitpid(pid, &status, 0) == pid && WIFEXITED(status), "Lost the child");
	TEST_ASSERT(!WEXITSTATUS(status), "place %d: written to the child's page (%d)",
		    p->id, WEXITSTATUS(status));
	close(pipefd[0]);
	close(pipefd[1]);
	return true;
}

static bool page_out(struct changer *c, struct place *p)
{
	return !madvise(wide_range(p, PLACE_PAGES - 1), MADV_PAGEOUT);
}

/* To the other node, if there are two; else off pages said to be failing. */
static bool migrate(struct changer *c, struct place *p)
{
	int node = -1, status = -1;
	void *page = page_of(p, pick_page(c, p));

	(void)syscall(__NR_move_pages, 0, 1ul, &page, NULL, &node, 0);
	if (node == 0 || node == 1) {
		node = !node;
		if (!syscall(__NR_move_pages, 0, 1ul, &page, &node, &status, MPOL_MF_MOVE) &&
		    status == node)
			return true;
	}

	if (__atomic_fetch_sub(&vmm.migrations_left, 1, __ATOMIC_SEQ_CST) <= 0)
		return false;
	return !madvise(page, PAGE_SIZE, MADV_SOFT_OFFLINE);
}

/* All small pages of the area move into one huge page. */
static bool collapse(struct changer *c, struct place *p)
{
	void *ballast = p->hva - BALLAST_SIZE;

	/* If it is one already, it falls apart first. */
	pthread_mutex_lock(&p->lock);
	SYSCALL_OK(mprotect(ballast, PAGE_SIZE, PROT_READ));
	SYSCALL_OK(mprotect(ballast, PAGE_SIZE, PROT_READ | PROT_WRITE));
	pthread_mutex_unlock(&p->lock);
	return !madvise(vmm.area[p->anon], AREA_SIZE, MADV_COLLAPSE);
}

/* ksmd merges what is equal, such as the ballast. */
static bool unmerge(struct changer *c, struct place *p)
{
	return p->anon && !madvise(wide_range(p, PLACE_PAGES - 1), MADV_UNMERGEABLE) &&
	       !madvise(wide_range(p, PLACE_PAGES - 1), MADV_MERGEABLE);
}

static bool change_protection(struct changer *c, struct place *p)
{
	pthread_mutex_lock(&p->lock);
	SYSCALL_OK(mprotect(wide_range(p, PLACE_PAGES - 1),
			    PROT_READ | PROT_WRITE | PROT_EXEC));
	SYSCALL_OK(mprotect(wide_range(p, PLACE_PAGES - 1), PROT_READ | PROT_WRITE));
	pthread_mutex_unlock(&p->lock);
	return true;
}

/*
 * Changes of memslots
 */

static void set_slots(struct place *p, uint64_t gpa, uint32_t flags, bool there)
{
	size_t size = p->two_slots ? PAGE_SIZE : PLACE_SIZE;
	int i;

	for (i = 0; i < PLACE_SIZE / size; i++)
		vm_set_user_memory_region(vmm.vm, GPC_SLOT + p->id * PLACE_PAGES + i, flags,
					  gpa + i * size, there ? size : 0,
					  p->hva + i * size);
}

static void assert_place_left_alone(struct place *p)
{
	int k;

	assert_left_alone(p, p->hva, PLACE_SIZE);
	for (k = 0; k < PLACE_PAGES; k++)
		make_page(p, k, page_of(p, k));
}

static bool recreate_slot(struct changer *c, struct place *p)
{
	set_slots(p, PLACE_GPA(p->id), 0, false);
	if (!p->by_hva && rarely(c, 4))
		assert_place_left_alone(p);
	set_slots(p, PLACE_GPA(p->id), p->flags, true);
	return true;
}

static bool move_slot(struct changer *c, struct place *p)
{
	set_slots(p, PLACE_GPA(p->id) + AWAY, p->flags, true);
	if (!p->by_hva && rarely(c, 4))
		assert_place_left_alone(p);
	set_slots(p, PLACE_GPA(p->id), p->flags, true);
	return true;
}

/* Nothing of it can be seen. */
static bool change_slot_flags(struct changer *c, struct place *p)
{
	pthread_mutex_lock(&p->lock);
	p->flags ^= KVM_MEM_LOG_DIRTY_PAGES;
	set_slots(p, PLACE_GPA(p->id), p->flags, true);
	pthread_mutex_unlock(&p->lock);
	return true;
}

/* A memslot that has nothing to do with any place. */
static bool change_other_slot(struct changer *c, struct place *p)
{
	const uint32_t slot = GPC_SLOT + NR_PLACES * PLACE_PAGES + (c - vmm.changer);
	uint64_t gpa = PLACE_GPA(NR_PLACES) + (c - vmm.changer) * PAGE_SIZE;

	vm_set_user_memory_region(vmm.vm, slot, 0, gpa, PAGE_SIZE, c->yard);
	vm_set_user_memory_region(vmm.vm, slot, 0, gpa, 0, NULL);
	return true;
}

/*
 * Activation and deactivation
 */

static int set_vcpu_attr(const struct place *p, uint16_t type, uint64_t addr)
{
	struct kvm_xen_vcpu_attr attr = { .type = type, .u.gpa = addr };

	return __vcpu_ioctl(vmm.vcpu[p->vcpu], KVM_XEN_VCPU_SET_ATTR, &attr);
}

static int set_vm_attr(uint16_t type, uint64_t addr)
{
	struct kvm_xen_hvm_attr attr = { .type = type, .u.shared_info.gfn = addr };

	return __vm_ioctl(vmm.vm, KVM_XEN_HVM_SET_ATTR, &attr);
}

/* Bind the record to where the place says that it is, or unbind it. */
static void bind_record(const struct place *p, bool on)
{
	uint64_t gpa = PLACE_GPA(p->id) + p->offset;
	uint64_t hva = (uintptr_t)p->hva + p->offset;
	int r = 0;

	switch (p->kind) {
	case KVMCLOCK:
		vcpu_set_msr(vmm.vcpu[p->vcpu], MSR_KVM_SYSTEM_TIME_NEW,
			     on ? gpa | KVM_MSR_ENABLED : 0);
		break;
	case TIME_INFO:
		r = set_vcpu_attr(p, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
				  on ? gpa : KVM_XEN_INVALID_GPA);
		break;
	case RUNSTATE:
		r = set_vcpu_attr(p, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR,
				  on ? gpa : KVM_XEN_INVALID_GPA);
		break;
	case VCPU_INFO:
		r = p->by_hva ?
		    set_vcpu_attr(p, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA, on ? hva : 0) :
		    set_vcpu_attr(p, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
				  on ? gpa : KVM_XEN_INVALID_GPA);
		break;
	case SHARED_INFO:
		r = p->by_hva ?
		    set_vm_attr(KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA, on ? hva : 0) :
		    set_vm_attr(KVM_XEN_ATTR_TYPE_SHARED_INFO,
				on ? gpa / PAGE_SIZE : KVM_XEN_INVALID_GFN);
		break;
	}
	TEST_ASSERT(!r, "place %d: cannot be %s: %s", p->id, on ? "bound" : "unbound",
		    strerror(errno));
}

/* Where the record goes next: not a byte in common with where it is. */
static size_t pick_offset(struct changer *c, const struct place *p)
{
	const size_t size = records[p->kind].end, end = PAGE_SIZE - size;
	size_t offset;

	do {
		offset = rand_r(&c->seed);
		switch (p->kind) {
		case KVMCLOCK:
		case TIME_INFO:
			offset = rarely(c, 4) ? end : offset % end & ~3ul;
			offset += rarely(c, 2) * PAGE_SIZE;
			break;
		case VCPU_INFO:	/* the guest's and KVM's atomic operations */
			offset = offset % PLACE_SIZE & ~(size - 1);
			break;
		case RUNSTATE:	/* mostly across the pages' border, at any byte */
			offset = rarely(c, 4) ? offset % (PLACE_SIZE - size) :
						PAGE_SIZE - 1 - offset % (size - 1);
			break;
		case SHARED_INFO:
			offset = !p->offset * PAGE_SIZE;
			break;
		default:
			TEST_FAIL("No such kind");
		}
	} while (offset < p->offset + size && p->offset < offset + size);
	return offset;
}

static bool deactivate(struct changer *c, struct place *p)
{
	bind_record(p, false);
	if (rarely(c, 4))
		assert_left_alone(p, p->hva, PLACE_SIZE);
	p->offset = pick_offset(c, p);
	p->by_hva = (p->kind == VCPU_INFO || p->kind == SHARED_INFO) && rarely(c, 2);
	make_page(p, 0, page_of(p, 0));
	make_page(p, 1, page_of(p, 1));
	bind_record(p, true);
	return true;
}

/* Straight to another address. */
static bool move_record(struct changer *c, struct place *p)
{
	size_t size = records[p->kind].end - records[p->kind].start;
	void *from, *to;

	from = p->hva + p->offset + records[p->kind].start;
	p->offset = pick_offset(c, p);
	to = p->hva + p->offset + records[p->kind].start;
	memset(to, 0, size);
	bind_record(p, true);
	memset(from, GPC_POISON, size);
	if (rarely(c, 4))
		assert_left_alone(p, from, size);
	return true;
}

#endif /* SELFTEST_KVM_GPC_PLACES_H */
