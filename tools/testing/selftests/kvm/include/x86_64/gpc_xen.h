/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Common code of the tests of Xen's runstate, a record that a guest may place across the
 * end of a page, in one memslot or in two.
 *
 * Proof that a record is whole: its four times always add up to the time of the last
 * change.  Proof that it is current: that time lies between two readings of the VM's
 * clock.  Proof that nothing else was written: the two pages hold GPC_POISON before, and
 * all but the record does so after.
 */
#ifndef SELFTEST_KVM_GPC_XEN_H
#define SELFTEST_KVM_GPC_XEN_H

#include <linux/compiler.h>
#include <vdso/unaligned.h>

#include "gpc.h"

/* The page end that records cross, and the pages on either side of it. */
#define GPC_SPAN_GPA		GPC_GPA
#define GPC_SPAN_SIZE		(2 * PAGE_SIZE)
#define GPC_SPAN_END		(GPC_SPAN_GPA + PAGE_SIZE)
/* Memslot of the second page, if separate. */
#define GPC_SPAN_SLOT2		(GPC_SLOT + 1)

/* Xen's public header vcpu.h. */
enum gpc_state {
	GPC_RUNNING,
	GPC_RUNNABLE,
	GPC_BLOCKED,
	GPC_OFFLINE,
	GPC_NR_STATES
};

#define GPC_RUNSTATE_UPDATE	BIT_ULL(63)

/*
 * A record is the 32-bit state, then the time it was entered and the times spent in each
 * state.  The times are 64 bits; a 32-bit guest aligns them to 4 bytes.  The values are
 * the offset of the first time.
 */
enum gpc_abi {
	GPC_32 = 4,
	GPC_64 = 8,
};

#define GPC_RECORD_SIZE(abi)	((int)(abi) + (1 + GPC_NR_STATES) * 8)
#define GPC_RECORD_MAX		GPC_RECORD_SIZE(GPC_64)

struct gpc_runstate {
	uint32_t state;
	uint64_t entry_time;
	uint64_t times[GPC_NR_STATES];
};

/* The two pages in the VMM's memory. */
struct gpc_span {
	void *page[2];
};

/* The record that the guest reads, and its content. */
extern struct gpc_read_record {
	uint64_t gva;
	enum gpc_abi abi;
	struct gpc_runstate rs;
} gpc_record;

struct gpc_runstate gpc_record_at(const void *record, enum gpc_abi abi);
uint64_t gpc_runstate_sum(const struct gpc_runstate *rs);

/*
 * Guest
 */

bool gpc_guest_try_record(const void *record, enum gpc_abi abi, struct gpc_runstate *rs);
void gpc_guest_read_record(void);

/*
 * VMM: attributes
 */

int gpc_xen_vm_attr(struct kvm_vm *vm, struct kvm_xen_hvm_attr attr);
int gpc_xen_vcpu_attr(struct kvm_vcpu *vcpu, struct kvm_xen_vcpu_attr attr);
void gpc_set_abi(struct kvm_vm *vm, enum gpc_abi abi);
void gpc_set_update_flag(struct kvm_vm *vm, bool on);
int gpc_set_record(struct kvm_vcpu *vcpu, uint64_t gpa);
int gpc_set_state(struct kvm_vcpu *vcpu, uint64_t state);
uint64_t gpc_now(struct kvm_vm *vm);
struct kvm_vcpu *gpc_xen_create_with_ring(struct __test_metadata *metadata, uint32_t entries);
struct kvm_vcpu *gpc_xen_create(struct __test_metadata *metadata);

#define GPC_REQUIRE_RUNSTATE()							\
do {										\
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));			\
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE);	\
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) &				\
		     KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG);			\
} while (0)

/*
 * VMM: memory
 */

void *gpc_mmap_adjacent(void);
struct gpc_span gpc_span_one_slot(struct kvm_vm *vm, void *mem);
struct gpc_span gpc_span_two_slots(struct kvm_vm *vm, void *first, void *second);
void gpc_span_poison(const struct gpc_span *span);
void gpc_span_assert_poison(const struct gpc_span *span);
void gpc_assert_whole(const struct gpc_runstate *rs);
uint8_t *gpc_span_byte(const struct gpc_span *span, uint64_t gpa);
struct gpc_runstate gpc_take_record(const struct gpc_span *span, uint64_t gpa, enum gpc_abi abi);
struct gpc_runstate gpc_assert_record(struct kvm_vcpu *vcpu, uint64_t gpa, enum gpc_abi abi);
void gpc_assert_record_in(struct kvm_vcpu *vcpu, const struct gpc_span *span, uint64_t gpa,
			  enum gpc_abi abi);

#endif /* SELFTEST_KVM_GPC_XEN_H */
