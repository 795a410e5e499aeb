// SPDX-License-Identifier: GPL-2.0-only
#include "gpc_xen.h"

struct gpc_read_record gpc_record;

struct gpc_runstate gpc_record_at(const void *record, enum gpc_abi abi)
{
	const void *times = record + abi;
	struct gpc_runstate rs;
	int i;

	rs.state = __get_unaligned_t(uint32_t, record);
	rs.entry_time = __get_unaligned_t(uint64_t, times);
	for (i = 0; i < GPC_NR_STATES; i++)
		rs.times[i] = __get_unaligned_t(uint64_t, times + (i + 1) * sizeof(uint64_t));
	return rs;
}

uint64_t gpc_runstate_sum(const struct gpc_runstate *rs)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < GPC_NR_STATES; i++)
		sum += rs->times[i];
	return sum;
}

/*
 * Guest
 */

/*
 * Read as vcpu.h demands: no update in progress, and none since.  The entry time may lie
 * across two cache lines or pages and be torn, so check the byte with the flag in
 * between.
 */
bool gpc_guest_try_record(const void *record, enum gpc_abi abi, struct gpc_runstate *rs)
{
	const void *entry_time = record + abi;
	const uint8_t *last_byte = entry_time + sizeof(uint64_t) - 1;
	const uint8_t flag = GPC_RUNSTATE_UPDATE >> 56;
	uint64_t before;

	before = __get_unaligned_t(uint64_t, entry_time);
	barrier();
	if (READ_ONCE(*last_byte) & flag)
		return false;
	barrier();
	*rs = gpc_record_at(record, abi);
	barrier();
	if (READ_ONCE(*last_byte) & flag)
		return false;
	barrier();
	return before == __get_unaligned_t(uint64_t, entry_time);
}

void gpc_guest_read_record(void)
{
	int i;

	for (i = 0; i < 1000; i++) {
		if (gpc_guest_try_record((void *)gpc_record.gva, gpc_record.abi, &gpc_record.rs))
			return;
	}
	GUEST_FAIL("the record is never consistent, entry time 0x%lx", gpc_record.rs.entry_time);
}

/*
 * VMM: attributes
 */

int gpc_xen_vm_attr(struct kvm_vm *vm, struct kvm_xen_hvm_attr attr)
{
	return __vm_ioctl(vm, KVM_XEN_HVM_SET_ATTR, &attr) ? -errno : 0;
}

int gpc_xen_vcpu_attr(struct kvm_vcpu *vcpu, struct kvm_xen_vcpu_attr attr)
{
	return __vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr) ? -errno : 0;
}

void gpc_set_abi(struct kvm_vm *vm, enum gpc_abi abi)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_LONG_MODE,
		.u.long_mode = abi == GPC_64,
	};

	TEST_ASSERT_EQ(gpc_xen_vm_attr(vm, attr), 0);
}

void gpc_set_update_flag(struct kvm_vm *vm, bool on)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG,
		.u.runstate_update_flag = on,
	};

	TEST_ASSERT_EQ(gpc_xen_vm_attr(vm, attr), 0);
}

int gpc_set_record(struct kvm_vcpu *vcpu, uint64_t gpa)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR,
		.u.gpa = gpa,
	};

	return gpc_xen_vcpu_attr(vcpu, attr);
}

int gpc_set_state(struct kvm_vcpu *vcpu, uint64_t state)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT,
		.u.runstate.state = state,
	};

	return gpc_xen_vcpu_attr(vcpu, attr);
}

uint64_t gpc_now(struct kvm_vm *vm)
{
	struct kvm_clock_data data;

	vm_ioctl(vm, KVM_GET_CLOCK, &data);
	return data.clock;
}

/* Like gpc_create_vm(), with the update flag in use. */
struct kvm_vcpu *gpc_xen_create_with_ring(struct __test_metadata *metadata, uint32_t entries)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = GPC_XEN_MSR,
	};
	struct kvm_vcpu *vcpu = gpc_create_vm(metadata, VM_TYPE_DEFAULT, entries);

	vm_ioctl(vcpu->vm, KVM_XEN_HVM_CONFIG, &config);
	gpc_set_update_flag(vcpu->vm, true);
	return vcpu;
}

struct kvm_vcpu *gpc_xen_create(struct __test_metadata *metadata)
{
	return gpc_xen_create_with_ring(metadata, 0);
}

/*
 * VMM: memory
 */

/* Two pages that are also adjacent in the host's memory. */
void *gpc_mmap_adjacent(void)
{
	const size_t size = 4ul << 20;
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *page;

	TEST_ASSERT(mem != MAP_FAILED, __KVM_SYSCALL_ERROR("mmap()", -1));
	(void)madvise(mem, size, MADV_HUGEPAGE);
	memset(mem, GPC_POISON, size);
	for (page = mem; page < mem + size - PAGE_SIZE; page += PAGE_SIZE) {
		if (gpc_pfn(page + PAGE_SIZE) == gpc_pfn(page) + 1)
			return page;
	}
	GPC_REQUIRE(false, "no two pages are adjacent in memory");
	return NULL;
}

/* One memslot of two pages, or two memslots of one page. */
struct gpc_span gpc_span_one_slot(struct kvm_vm *vm, void *mem)
{
	vm_set_user_memory_region(vm, GPC_SLOT, 0, GPC_SPAN_GPA, GPC_SPAN_SIZE, mem);
	return (struct gpc_span){ { mem, mem + PAGE_SIZE } };
}

struct gpc_span gpc_span_two_slots(struct kvm_vm *vm, void *first, void *second)
{
	vm_set_user_memory_region(vm, GPC_SLOT, 0, GPC_SPAN_GPA, PAGE_SIZE, first);
	vm_set_user_memory_region(vm, GPC_SPAN_SLOT2, 0, GPC_SPAN_END, PAGE_SIZE, second);
	return (struct gpc_span){ { first, second } };
}

void gpc_span_poison(const struct gpc_span *span)
{
	memset(span->page[0], GPC_POISON, PAGE_SIZE);
	memset(span->page[1], GPC_POISON, PAGE_SIZE);
}

void gpc_span_assert_poison(const struct gpc_span *span)
{
	GPC_ASSERT_POISON(span->page[0], PAGE_SIZE);
	GPC_ASSERT_POISON(span->page[1], PAGE_SIZE);
}

void gpc_assert_whole(const struct gpc_runstate *rs)
{
	TEST_ASSERT(!(rs->entry_time & GPC_RUNSTATE_UPDATE), "The update flag is still set");
	TEST_ASSERT(rs->state < GPC_NR_STATES, "State %u", rs->state);
	TEST_ASSERT(gpc_runstate_sum(rs) == rs->entry_time,
		    "Times add up to %lu ns at %lu ns", gpc_runstate_sum(rs), rs->entry_time);
}

uint8_t *gpc_span_byte(const struct gpc_span *span, uint64_t gpa)
{
	size_t offset = gpa - GPC_SPAN_GPA;

	return span->page[offset / PAGE_SIZE] + offset % PAGE_SIZE;
}

/*
 * Take the record at @gpa out and leave poison.  Assert that the record is whole, that
 * its padding is unchanged or zero, and that KVM has written nothing else.
 */
struct gpc_runstate gpc_take_record(const struct gpc_span *span, uint64_t gpa, enum gpc_abi abi)
{
	uint8_t record[GPC_RECORD_MAX];
	struct gpc_runstate rs;
	int i;

	for (i = 0; i < GPC_RECORD_SIZE(abi); i++) {
		uint8_t *byte = gpc_span_byte(span, gpa + i);

		record[i] = *byte;
		*byte = GPC_POISON;
	}
	gpc_span_assert_poison(span);

	for (i = sizeof(rs.state); i < abi; i++)
		TEST_ASSERT(!record[i] || record[i] == GPC_POISON,
			    "0x%x in the padding", record[i]);
	rs = gpc_record_at(record, abi);
	gpc_assert_whole(&rs);
	return rs;
}

/* Assert that the guest reads a record at @gpa that KVM has just written. */
struct gpc_runstate gpc_assert_record(struct kvm_vcpu *vcpu, uint64_t gpa, enum gpc_abi abi)
{
	uint64_t before = gpc_now(vcpu->vm), after;
	struct gpc_runstate *rs = &gpc_record.rs;

	gpc_record.gva = gpa;
	gpc_record.abi = abi;
	sync_global_to_guest(vcpu->vm, gpc_record);
	gpc_run(vcpu, (struct gpc_step) { .call = gpc_guest_read_record });
	sync_global_from_guest(vcpu->vm, gpc_record);
	after = gpc_now(vcpu->vm);

	gpc_assert_whole(rs);
	TEST_ASSERT(rs->state == GPC_RUNNING, "Guest runs in state %u", rs->state);
	TEST_ASSERT(before <= rs->entry_time && rs->entry_time <= after,
		    "Guest reads %lu ns, clock was at %lu ns, then at %lu ns",
		    rs->entry_time, before, after);
	return *rs;
}

/* Like gpc_assert_record().  Also assert that KVM writes nothing else. */
void gpc_assert_record_in(struct kvm_vcpu *vcpu, const struct gpc_span *span, uint64_t gpa,
			  enum gpc_abi abi)
{
	gpc_span_poison(span);
	gpc_assert_record(vcpu, gpa, abi);
	gpc_take_record(span, gpa, abi);
}
