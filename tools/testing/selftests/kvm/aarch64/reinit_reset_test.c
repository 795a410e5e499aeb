// SPDX-License-Identifier: GPL-2.0-only
/*
 * A complete reset of a VM (Documentation/virt/kvm/arm/reinit.rst): the VMM initializes
 * all vCPUs again and writes a new image. Each vCPU turns its MMU and its caches on. The
 * first vCPU touches some of the memory that was mapped before the reset.
 *
 * An emulator's caches are coherent, so checking the values that a guest reads is not
 * enough: cmo_watch.h reports which pages were maintained.
 */
#include <unistd.h>

#include <linux/sizes.h>

#include "bare.h"
#include "cmo_watch.h"
#include "kvm_test_harness.h"

#define MAX_VCPUS	64
#define SIZE		(8ul * SZ_1M)
#define END		(BARE_GPA + SIZE)
#define page		cmo_page

FIXTURE(reset)
{
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[MAX_VCPUS];
	char *mem, *code;
};

FIXTURE_VARIANT(reset)
{
	int vcpus;
	bool blocks;
};

FIXTURE_VARIANT_ADD(reset, pages_1) { .vcpus = 1, .blocks = false };
FIXTURE_VARIANT_ADD(reset, pages_2) { .vcpus = 2, .blocks = false };
FIXTURE_VARIANT_ADD(reset, pages_8) { .vcpus = 8, .blocks = false };
FIXTURE_VARIANT_ADD(reset, pages_64) { .vcpus = 64, .blocks = false };
FIXTURE_VARIANT_ADD(reset, blocks_1) { .vcpus = 1, .blocks = true };
FIXTURE_VARIANT_ADD(reset, blocks_2) { .vcpus = 2, .blocks = true };
FIXTURE_VARIANT_ADD(reset, blocks_8) { .vcpus = 8, .blocks = true };
FIXTURE_VARIANT_ADD(reset, blocks_64) { .vcpus = 64, .blocks = true };

FIXTURE_SETUP(reset)
{
	if (!cmo_watch_setup())
		SKIP(return, "kernel without kprobe events");
	if (kvm_check_cap(KVM_CAP_MAX_VCPUS) < variant->vcpus)
		SKIP(return, "host without support for %d vCPUs", variant->vcpus);
	if (variant->blocks && page != SZ_4K)
		SKIP(return, "needs 4K pages, for blocks of 2M");
	if (variant->blocks && access("/sys/kernel/mm/transparent_hugepage", F_OK))
		SKIP(return, "kernel without transparent huge pages");
	self->vm = vm_create_barebones();
	self->code = bare_code(self->vm);
	self->mem = bare_mem(SIZE, variant->blocks ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	bare_slot(self->vm, 0, SIZE, self->mem);
	bare_add_vcpus(self->vm, self->vcpus, variant->vcpus);
}

FIXTURE_TEARDOWN(reset)
{
	kvm_vm_free(self->vm);
}

static void reset(struct kvm_vm *vm, struct kvm_vcpu **vcpus, int n, bool blocks,
		  char *mem, char *code, uint64_t end)
{
	struct cmo_watch data = cmo_watch(BARE_GPA, mem, SIZE);
	struct cmo_watch text = cmo_watch(BARE_CODE, code, page);
	uint64_t step = blocks ? SZ_2M / page : 1, sum, i, j;

	/* Map everything before the reset. */
	bare_run_on(vcpus[0], BARE_MMU_ON, BARE_GPA, END, ~0ul);
	for (i = 1; i < n; i++)
		bare_run_on(vcpus[i], BARE_MMU_ON, 0, 0, 0);

	for (j = 2; j < 4; j++) {
		cmo_watch_start();
		for (i = 0; i < n; i++)
			bare_init(vcpus[i], false);
		cmo_watch_end(&data);
		/* The reset unmaps and cleans each mapped page once. */
		for (i = 0; i < data.pages; i++) {
			bool mapped = j == 2 || i * page < end - BARE_GPA;

			cmo_assert_seen(&data, i, !cmo_fwb && mapped, 0);
		}

		sum = bare_write_words(mem, SIZE, j, end);
		bare_load(code, j);

		cmo_watch_start();
		bare_assert_report(bare_run_on(vcpus[0], BARE_MMU_ON, BARE_GPA, end, ~0ul), j, sum);
		for (i = 1; i < n; i++)
			bare_assert_report(bare_run_on(vcpus[i], BARE_MMU_ON, 0, 0, 0), j, 0);
		cmo_watch_end(&data);
		cmo_watch_end(&text);

		/*
		 * A touched page faults and is cleaned for that. It is cleaned again when
		 * a sibling turns its caches on. An untouched page costs nothing.
		 */
		for (i = 0; i < data.pages; i++) {
			bool touched = !cmo_fwb && i * page < end - BARE_GPA;

			cmo_assert_seen(&data, i, touched ? n : 0, touched && i % step == 0);
		}
		cmo_assert_seen(&text, 0, cmo_fwb ? 0 : 1 + n, !cmo_fwb);
		TEST_ASSERT_EQ(text.seen[0].icache, !cmo_fwb);
	}
}

#define RESET(end) \
	reset(self->vm, self->vcpus, variant->vcpus, variant->blocks, self->mem, self->code, end)

TEST_F(reset, touch_nothing)
{
	RESET(BARE_GPA);
}

TEST_F(reset, touch_half)
{
	RESET(BARE_GPA + SIZE / 2);
}

TEST_F(reset, touch_all)
{
	RESET(END);
}

int main(int argc, char **argv)
{
	return test_harness_run(argc, argv);
}
