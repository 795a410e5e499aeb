/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The stress test of the guest page cache: the VMM's side of the places that hold the
 * records, and the pages that were taken away from the places.
 *
 * A place is poisoned around its record.  So is the ballast, the pages before the place
 * in the VMM's memory.  A page that was taken away is poisoned after the system call that
 * took it returns.  The page stays with the VMM for some time: moved to another address
 * or to another offset of the file, or freed and probably allocated again for what the
 * VMM touches next.  No byte of poison may ever change.
 */
#ifndef SELFTEST_KVM_GPC_STRESS_PLACES_H
#define SELFTEST_KVM_GPC_STRESS_PLACES_H

#include <pthread.h>

#include "gpc_stress.h"

#define PLACE_PAGES	2
#define PLACE_SIZE	(PLACE_PAGES * PAGE_SIZE)

/* In guest memory, with room to move the place up by its size. */
#define PLACE_GPA(id)	(GPC_GPA + (id) * 2 * PLACE_SIZE)
#define AWAY		PLACE_SIZE

/*
 * In the VMM's memory: a huge page's worth, in which each place follows its ballast.  The
 * ballast delays an invalidation between the start of its range and the record, which
 * leaves more time for races.
 */
#define AREA_SIZE	(2ul << 20)
#define BALLAST_SIZE	(16 * PAGE_SIZE)
#define AREA_OFFSET(id)	((id) * 2 * BALLAST_SIZE + BALLAST_SIZE)

/* Pages that a thread keeps: those taken away, and spare ones. */
#define YARD_PAGES	16
#define YARD_SIZE	(YARD_PAGES * PAGE_SIZE)
#define MAX_CHANGERS	8

struct place {
	int id;
	enum kind kind;
	int vcpu;
	bool anon;		/* the VMM's anonymous memory; else a file's */
	bool two_slots;		/* a memslot for each page */

	pthread_mutex_t lock;	/* protects the fields below; held while disturbed */
	void *hva;
	off_t file[PLACE_PAGES];
	size_t offset;		/* of the record */
	bool by_hva;		/* the record is bound to its user address */
	uint32_t flags;		/* of the memslots */
};

/* The bytes that KVM writes for each kind, relative to the record's address. */
extern const struct place_record {
	size_t start, end;
} place_records[];

struct changer;

/* A change, in a list that ends with { }.  @weight: relative frequency. */
struct change {
	const char *name;
	bool (*make)(struct changer *c, struct place *p);
	unsigned int weight;
	bool disturbs;
};

/* A thread that makes changes, and its own memory for that. */
struct changer {
	pthread_t thread;
	const struct change *changes;
	unsigned int seed;
	void *diversion;		/* PLACE_SIZE of memory that is never checked */
	uint8_t *yard;			/* poisoned pages */
	off_t spare[YARD_PAGES];	/* poisoned pages of the file */
	unsigned int next;		/* index of the oldest page in both */
	uint64_t done[8];		/* count of each change */
};

extern struct vmm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu[NR_VCPUS];
	struct stress *guest;		/* the guest's copy */
	struct place place[NR_PLACES];
	void *area[2];
	int file;
	void *alias;			/* mapping of the whole file */

	pthread_mutex_t lock;
	pthread_cond_t has_run;
	uint64_t runs[NR_VCPUS];	/* returns of KVM_RUN */

	pthread_mutex_t era_lock;
	uint64_t era;			/* last era that KVM_SET_CLOCK has begun */

	struct changer changer[MAX_CHANGERS];
	int nr_changers;
	int migrations_left;		/* that cost a page each */
} vmm;

void *vmm_map(void *at, size_t size, int flags, int fd, off_t off);

#define SYSCALL_OK(call)						\
do {									\
	long _r = (long)(call);						\
									\
	TEST_ASSERT(_r != -1, "%s: %s", #call, strerror(errno));	\
} while (0)

/*
 * Progress
 */

void vmm_note_run(int vcpu);
void vmm_wait_a_run(void);
int vmm_send_event(int vcpu, int port);

/*
 * Places
 */

uint32_t vmm_seq(int place);
bool vmm_undisturbed(int place, uint32_t seq);

static inline void *place_page(const struct place *p, int k)
{
	return p->hva + k * PAGE_SIZE;
}

static inline void *place_ballast(const struct place *p)
{
	return p->hva - BALLAST_SIZE;
}

/* Distance from the ballast to the end of page @k. */
static inline size_t place_ballast_to(int k)
{
	return BALLAST_SIZE + (k + 1) * PAGE_SIZE;
}

void place_make_page(const struct place *p, int k, void *page);
void place_assert_around(const struct place *p);
void place_disturb(struct place *p);
void place_settle(struct place *p);
void place_provoke(const struct place *p);
void place_assert_left_alone(const struct place *p, void *mem, size_t size);

static inline bool changer_rarely(struct changer *c, int n)
{
	return !(rand_r(&c->seed) % n);
}

int place_pick_page(struct changer *c, const struct place *p);

/*
 * Pages that were taken away
 */

uint8_t *yard_next(struct changer *c);
void *spare_next(struct changer *c);
void yard_advance(struct changer *c);
void yard_assert(struct changer *c);

/*
 * Changes, by subject
 */

extern const struct change stress_replacing[], stress_keeping[], stress_slots[], stress_activity[];

/* Add the memslots of the place at @gpa, or remove them. */
void place_set_slots(const struct place *p, uint64_t gpa, bool there);
/* Bind the record to the place's current address, or unbind it. */
void place_bind(const struct place *p, bool on);
int vmm_set_attr(uint16_t type, uint64_t addr);

#endif /* SELFTEST_KVM_GPC_STRESS_PLACES_H */
