// SPDX-License-Identifier: GPL-2.0-only
#include "gpc_stress_places.h"

const struct place_record place_records[] = {
	[KVMCLOCK]	= { 0, sizeof(struct pvclock_vcpu_time_info) },
	[TIME_INFO]	= { 0, sizeof(struct pvclock_vcpu_time_info) },
	[VCPU_INFO]	= { 0, sizeof(struct xen_vcpu_info) },
	[RUNSTATE]	= { 0, sizeof(struct xen_runstate) },
	[SHARED_INFO]	= { offsetof(struct xen_shared_info, pending),
			    sizeof(struct xen_shared_info) },
};

struct vmm vmm = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.has_run = PTHREAD_COND_INITIALIZER,
	.era_lock = PTHREAD_MUTEX_INITIALIZER,
};

void *vmm_map(void *at, size_t size, int flags, int fd, off_t off)
{
	void *mem = mmap(at, size, PROT_READ | PROT_WRITE, flags | (at ? MAP_FIXED : 0),
			 fd, off);

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	return mem;
}

/*
 * Progress
 */

void vmm_note_run(int vcpu)
{
	pthread_mutex_lock(&vmm.lock);
	vmm.runs[vcpu]++;
	pthread_cond_broadcast(&vmm.has_run);
	pthread_mutex_unlock(&vmm.lock);
}

/* Wait for the next return from KVM_RUN.  vCPUs run until all other threads are done. */
void vmm_wait_a_run(void)
{
	pthread_mutex_lock(&vmm.lock);
	pthread_cond_wait(&vmm.has_run, &vmm.lock);
	pthread_mutex_unlock(&vmm.lock);
}

/* Wait until each vCPU has returned from a run that begins after this call. */
static void vmm_wait_new_runs(void)
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

int vmm_send_event(int vcpu, int port)
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

uint32_t vmm_seq(int place)
{
	return __atomic_load_n(&vmm.guest->place[place].seq, __ATOMIC_SEQ_CST);
}

bool vmm_undisturbed(int place, uint32_t seq)
{
	return !(seq & 1) && vmm_seq(place) == seq;
}

/* Size of the poison before the record in page @k, and start of the poison behind it. */
static void around(const struct place *p, int k, size_t *before, size_t *behind)
{
	size_t start = p->offset + place_records[p->kind].start;
	size_t end = p->offset + place_records[p->kind].end;
	size_t page = k * PAGE_SIZE, page_end = page + PAGE_SIZE;

	*before = clamp(start, page, page_end) - page;
	*behind = clamp(end, page, page_end) - page;
	if (*before == PAGE_SIZE || !*behind)
		*before = *behind = PAGE_SIZE;
}

static void place_poison_around(const struct place *p, int k, void *page)
{
	size_t before, behind;

	around(p, k, &before, &behind);
	memset(page, GPC_POISON, before);
	memset(page + behind, GPC_POISON, PAGE_SIZE - behind);
}

/* Prepare a page for a place, without a record. */
void place_make_page(const struct place *p, int k, void *page)
{
	size_t before, behind;

	around(p, k, &before, &behind);
	memset(page + before, 0, behind - before);
	place_poison_around(p, k, page);
}

void place_assert_around(const struct place *p)
{
	size_t before, behind;
	int k;

	for (k = 0; k < PLACE_PAGES; k++) {
		void *page = place_page(p, k);

		around(p, k, &before, &behind);
		TEST_ASSERT(gpc_is_poison(page, before) &&
			    gpc_is_poison(page + behind, PAGE_SIZE - behind),
			    "place %d: written to around the record", p->id);
	}
	TEST_ASSERT(gpc_is_poison(place_ballast(p), BALLAST_SIZE),
		    "place %d: written to before the place", p->id);
}

/* Like Xen when the guest moves its vCPU info: let the guest check all words. */
static void raise_upcall(const struct place *p)
{
	struct xen_vcpu_info *vinfo = p->hva + p->offset;

	if (p->kind != VCPU_INFO)
		return;
	__atomic_store_n(&vinfo->pending_sel, ~0ull, __ATOMIC_SEQ_CST);
	__atomic_store_n(&vinfo->upcall_pending, 1, __ATOMIC_SEQ_CST);
}

void place_disturb(struct place *p)
{
	int i;

	pthread_mutex_lock(&p->lock);
	place_assert_around(p);
	__atomic_fetch_add(&vmm.guest->place[p->id].seq, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < NR_VCPUS; i++)
		if (p->kind == SHARED_INFO || (p->kind == VCPU_INFO && p->vcpu == i))
			while (__atomic_load_n(&vmm.guest->vcpu[i].taking, __ATOMIC_SEQ_CST))
				vmm_wait_a_run();
}

void place_settle(struct place *p)
{
	int k;

	for (k = 0; k < PLACE_PAGES; k++)
		place_poison_around(p, k, place_page(p, k));
	raise_upcall(p);
	vmm.guest->place[p->id].gva = PLACE_GPA(p->id) + p->offset;
	__atomic_fetch_add(&vmm.guest->place[p->id].seq, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&p->lock);
}

/* Give KVM every reason to write to the place. */
void place_provoke(const struct place *p)
{
	if (p->kind == SHARED_INFO || p->kind == VCPU_INFO)
		(void)vmm_send_event(p->vcpu, NOISE_PORT);
	vmm_wait_new_runs();
}

/* KVM must not write to @mem any more: poison it and check. */
void place_assert_left_alone(const struct place *p, void *mem, size_t size)
{
	memset(mem, GPC_POISON, size);
	place_provoke(p);
	TEST_ASSERT(gpc_is_poison(mem, size), "place %d: still written to", p->id);
}

/* Pick a page that holds a part of the record. */
int place_pick_page(struct changer *c, const struct place *p)
{
	int first = p->offset / PAGE_SIZE;
	int last = (p->offset + place_records[p->kind].end - 1) / PAGE_SIZE;

	return changer_rarely(c, 2) ? first : last;
}

/*
 * Pages that were taken away
 */

uint8_t *yard_next(struct changer *c)
{
	uint8_t *page = c->yard + c->next * PAGE_SIZE;

	TEST_ASSERT(gpc_is_poison(page, PAGE_SIZE), "Written to: a page taken away");
	return page;
}

void *spare_next(struct changer *c)
{
	void *page = vmm.alias + c->spare[c->next];

	TEST_ASSERT(gpc_is_poison(page, PAGE_SIZE), "Written to: a page taken out of the file");
	return page;
}

void yard_advance(struct changer *c)
{
	c->next = (c->next + 1) % YARD_PAGES;
}

void yard_assert(struct changer *c)
{
	int i;

	for (i = 0; i < YARD_PAGES; i++) {
		yard_next(c);
		spare_next(c);
		yard_advance(c);
	}
}
