// SPDX-License-Identifier: GPL-2.0-only
/*
 * The stress test of the guest page cache: all changes that a VMM can make to the places
 * that hold the records.  Each change returns whether it applies to the place.
 */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/falloc.h>
#include <linux/mempolicy.h>

#include "gpc_stress_places.h"

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

/*
 * Replace what backs a place, and lose its contents.  The place is disturbed.
 */

/* Move the page to another address.  The place gets an empty page. */
static bool move_page_out(struct changer *c, struct place *p)
{
	int k = place_pick_page(c, p);
	uint8_t *yard;

	if (!p->anon)
		return false;

	yard = yard_next(c);
	SYSCALL_OK(mremap(place_page(p, k), PAGE_SIZE, PAGE_SIZE,
			  MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, yard));
	memset(yard, GPC_POISON, PAGE_SIZE);
	if (changer_rarely(c, 16))
		place_assert_left_alone(p, yard, PAGE_SIZE);
	yard_advance(c);
	return true;
}

/* The old page goes to the kernel, and from there probably into the yard. */
static bool move_page_in(struct changer *c, struct place *p)
{
	int k = place_pick_page(c, p);
	uint8_t *yard;

	if (!p->anon)
		return false;

	yard = yard_next(c);
	place_make_page(p, k, yard);
	SYSCALL_OK(mremap(yard, PAGE_SIZE, PAGE_SIZE,
			  MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, place_page(p, k)));
	memset(yard, GPC_POISON, PAGE_SIZE);
	yard_advance(c);
	return true;
}

/* The page goes to the kernel, and from there probably into the ballast. */
static bool drop_page(struct changer *c, struct place *p)
{
	int k = place_pick_page(c, p);

	if (!p->anon)
		return false;

	SYSCALL_OK(madvise(place_ballast(p), place_ballast_to(k), MADV_DONTNEED));
	memset(place_ballast(p), GPC_POISON, BALLAST_SIZE);
	return true;
}

static bool map_over(struct changer *c, struct place *p)
{
	int k = place_pick_page(c, p);
	uint8_t *spare;
	off_t old;

	if (p->anon) {
		SYSCALL_OK(mmap(place_ballast(p), place_ballast_to(k), PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		memset(place_ballast(p), GPC_POISON, BALLAST_SIZE);
	} else {
		spare = spare_next(c);
		place_make_page(p, k, spare);
		vmm_map(place_page(p, k), PAGE_SIZE, MAP_SHARED, vmm.file, c->spare[c->next]);

		/* The file keeps the page. */
		old = p->file[k];
		p->file[k] = c->spare[c->next];
		c->spare[c->next] = old;
		memset(vmm.alias + old, GPC_POISON, PAGE_SIZE);
		if (changer_rarely(c, 16))
			place_assert_left_alone(p, vmm.alias + old, PAGE_SIZE);
		yard_advance(c);
	}
	return true;
}

/* The file loses the page.  The page goes to the kernel, then probably into the yard. */
static bool punch_hole(struct changer *c, struct place *p)
{
	int k = place_pick_page(c, p);
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
	int k = place_pick_page(c, p);
	uint8_t copy[PAGE_SIZE];

	if (p->anon) {
		SYSCALL_OK(mprotect(place_ballast(p), place_ballast_to(k), PROT_READ));
		if (changer_rarely(c, 16)) {
			memcpy(copy, place_page(p, k), PAGE_SIZE);
			place_provoke(p);
			TEST_ASSERT(!memcmp(copy, place_page(p, k), PAGE_SIZE),
				    "place %d: written to while read-only", p->id);
		}
	} else {
		SYSCALL_OK(mprotect(place_ballast(p), place_ballast_to(k), PROT_NONE));
		if (changer_rarely(c, 16)) {
			place_assert_left_alone(p, vmm.alias + p->file[k], PAGE_SIZE);
			place_make_page(p, k, vmm.alias + p->file[k]);
		}
	}
	SYSCALL_OK(mprotect(place_ballast(p), place_ballast_to(k), PROT_READ | PROT_WRITE));
	return true;
}

/*
 * Replace what backs a place, and keep its contents.  The place is not disturbed.
 */

/* The child keeps the old page, which must not change. */
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

	place_provoke(p);
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
	return !madvise(place_ballast(p), place_ballast_to(PLACE_PAGES - 1), MADV_PAGEOUT);
}

/* Migrate to the other node if there are two, else soft-offline the page. */
static bool migrate(struct changer *c, struct place *p)
{
	int node = -1, status = -1;
	void *page = place_page(p, place_pick_page(c, p));

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

/* Collapse all small pages of the area into one huge page. */
static bool collapse(struct changer *c, struct place *p)
{
	void *ballast = place_ballast(p);

	/* If the area is huge already, split it first. */
	pthread_mutex_lock(&p->lock);
	SYSCALL_OK(mprotect(ballast, PAGE_SIZE, PROT_READ));
	SYSCALL_OK(mprotect(ballast, PAGE_SIZE, PROT_READ | PROT_WRITE));
	pthread_mutex_unlock(&p->lock);
	return !madvise(vmm.area[p->anon], AREA_SIZE, MADV_COLLAPSE);
}

/* ksmd merges equal pages, at least the page next to the record's. */
static bool unmerge(struct changer *c, struct place *p)
{
	const size_t size = place_ballast_to(PLACE_PAGES - 1);

	return p->anon && !madvise(place_ballast(p), size, MADV_UNMERGEABLE) &&
	       !madvise(place_ballast(p), size, MADV_MERGEABLE);
}

static bool change_protection(struct changer *c, struct place *p)
{
	const size_t size = place_ballast_to(PLACE_PAGES - 1);
	void *ballast = place_ballast(p);

	pthread_mutex_lock(&p->lock);
	SYSCALL_OK(mprotect(ballast, size, PROT_READ | PROT_WRITE | PROT_EXEC));
	SYSCALL_OK(mprotect(ballast, size, PROT_READ | PROT_WRITE));
	pthread_mutex_unlock(&p->lock);
	return true;
}

/*
 * Memslots
 */

static size_t slot_size(const struct place *p)
{
	return p->two_slots ? PAGE_SIZE : PLACE_SIZE;
}

static void set_slot(const struct place *p, int i, uint64_t gpa, void *hva)
{
	vm_set_user_memory_region(vmm.vm, GPC_SLOT + p->id * PLACE_PAGES + i, p->flags,
				  gpa + i * PAGE_SIZE, hva ? slot_size(p) : 0, hva);
}

void place_set_slots(const struct place *p, uint64_t gpa, bool there)
{
	int i;

	for (i = 0; i < PLACE_SIZE / slot_size(p); i++)
		set_slot(p, i, gpa, there ? place_page(p, i) : NULL);
}

static void assert_place_left_alone(struct place *p)
{
	int k;

	place_assert_left_alone(p, p->hva, PLACE_SIZE);
	for (k = 0; k < PLACE_PAGES; k++)
		place_make_page(p, k, place_page(p, k));
}

static bool recreate_slot(struct changer *c, struct place *p)
{
	place_set_slots(p, PLACE_GPA(p->id), false);
	if (!p->by_hva && changer_rarely(c, 4))
		assert_place_left_alone(p);
	place_set_slots(p, PLACE_GPA(p->id), true);
	return true;
}

static bool move_slot(struct changer *c, struct place *p)
{
	place_set_slots(p, PLACE_GPA(p->id) + AWAY, true);
	if (!p->by_hva && changer_rarely(c, 4))
		assert_place_left_alone(p);
	place_set_slots(p, PLACE_GPA(p->id), true);
	return true;
}

/* Put other memory at the address, perhaps in only one of two memslots. */
static bool divert_slot(struct changer *c, struct place *p)
{
	int i = p->two_slots ? place_pick_page(c, p) : 0;

	set_slot(p, i, PLACE_GPA(p->id), NULL);
	set_slot(p, i, PLACE_GPA(p->id), c->diversion);
	if (!p->by_hva && changer_rarely(c, 4)) {
		place_assert_left_alone(p, place_page(p, i), slot_size(p));
		place_make_page(p, 0, place_page(p, 0));
		place_make_page(p, 1, place_page(p, 1));
	}
	set_slot(p, i, PLACE_GPA(p->id), NULL);
	set_slot(p, i, PLACE_GPA(p->id), place_page(p, i));
	return true;
}

/* The guest cannot see this change. */
static bool change_slot_flags(struct changer *c, struct place *p)
{
	pthread_mutex_lock(&p->lock);
	p->flags ^= KVM_MEM_LOG_DIRTY_PAGES;
	place_set_slots(p, PLACE_GPA(p->id), true);
	pthread_mutex_unlock(&p->lock);
	return true;
}

/* A memslot that is unrelated to all places. */
static bool change_other_slot(struct changer *c, struct place *p)
{
	const uint32_t slot = GPC_SLOT + NR_PLACES * PLACE_PAGES + (c - vmm.changer);
	uint64_t gpa = PLACE_GPA(NR_PLACES) + (c - vmm.changer) * PAGE_SIZE;

	vm_set_user_memory_region(vmm.vm, slot, 0, gpa, PAGE_SIZE, c->diversion);
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

int vmm_set_attr(uint16_t type, uint64_t addr)
{
	struct kvm_xen_hvm_attr attr = { .type = type, .u.shared_info.gfn = addr };

	return __vm_ioctl(vmm.vm, KVM_XEN_HVM_SET_ATTR, &attr);
}

void place_bind(const struct place *p, bool on)
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
		    vmm_set_attr(KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA, on ? hva : 0) :
		    vmm_set_attr(KVM_XEN_ATTR_TYPE_SHARED_INFO,
				 on ? gpa / PAGE_SIZE : KVM_XEN_INVALID_GFN);
		break;
	}
	TEST_ASSERT(!r, "place %d: cannot be %s: %s", p->id, on ? "bound" : "unbound",
		    strerror(errno));
}

/* The record's next offset, which must not overlap the current one. */
static size_t pick_offset(struct changer *c, const struct place *p)
{
	const size_t size = place_records[p->kind].end, end = PAGE_SIZE - size;
	size_t offset;

	do {
		offset = rand_r(&c->seed);
		switch (p->kind) {
		case KVMCLOCK:
		case TIME_INFO:
			offset = changer_rarely(c, 4) ? end : offset % end & ~3ul;
			offset += changer_rarely(c, 2) * PAGE_SIZE;
			break;
		case VCPU_INFO:	/* aligned for atomic operations of the guest and KVM */
			offset = offset % PLACE_SIZE & ~(size - 1);
			break;
		case RUNSTATE:	/* mostly across the pages' border, at any byte */
			offset = changer_rarely(c, 4) ? offset % (PLACE_SIZE - size) :
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
	place_bind(p, false);
	if (changer_rarely(c, 4))
		place_assert_left_alone(p, p->hva, PLACE_SIZE);
	p->offset = pick_offset(c, p);
	p->by_hva = (p->kind == VCPU_INFO || p->kind == SHARED_INFO) && changer_rarely(c, 2);
	place_make_page(p, 0, place_page(p, 0));
	place_make_page(p, 1, place_page(p, 1));
	place_bind(p, true);
	return true;
}

/* Move the record directly to another address. */
static bool move_record(struct changer *c, struct place *p)
{
	size_t size = place_records[p->kind].end - place_records[p->kind].start;
	void *from, *to;

	from = p->hva + p->offset + place_records[p->kind].start;
	p->offset = pick_offset(c, p);
	to = p->hva + p->offset + place_records[p->kind].start;
	memset(to, 0, size);
	place_bind(p, true);
	memset(from, GPC_POISON, size);
	if (changer_rarely(c, 4))
		place_assert_left_alone(p, from, size);
	return true;
}

/* Changes by kind.  Each changing thread makes those of one kind. */
const struct change stress_replacing[] = {
	{ "move_page_out",	move_page_out,		4, true },
	{ "move_page_in",	move_page_in,		2, true },
	{ "drop_page",		drop_page,		2, true },
	{ "map_over",		map_over,		4, true },
	{ "punch_hole",		punch_hole,		4, true },
	{ "protect",		protect,		2, true },
	{ }
};

const struct change stress_keeping[] = {
	{ "change_protection",	change_protection,	8 },
	{ "migrate",		migrate,		8 },
	{ "page_out",		page_out,		2 },
	{ "collapse",		collapse,		1 },
	{ "unmerge",		unmerge,		1 },
	{ "copy_on_write",	copy_on_write,		1 },
	{ }
};

const struct change stress_slots[] = {
	{ "recreate_slot",	recreate_slot,		1, true },
	{ "move_slot",		move_slot,		1, true },
	{ "divert_slot",	divert_slot,		1, true },
	{ "change_slot_flags",	change_slot_flags,	3 },
	{ "change_other_slot",	change_other_slot,	3 },
	{ }
};

const struct change stress_activity[] = {
	{ "deactivate",		deactivate,		1, true },
	{ "move_record",	move_record,		1, true },
	{ }
};
