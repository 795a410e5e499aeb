// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite of internal VMs.  Its cases run in a kthread.  A task that writes to the
 * file "run" of a suite in debugfs runs the guest itself first, in suite_init().
 */
#include <kunit/test.h>
#include <kunit/static_stub.h>

#include <linux/cpu.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/kvm_internal_vm.h>
#include <linux/memblock.h>
#include <linux/mmzone.h>
#include <linux/sched/signal.h>
#include <linux/set_memory.h>
#include <linux/sizes.h>
#include <linux/sort.h>

#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>
#include <asm/sections.h>
#include <asm/stage2_pgtable.h>
#include <asm/virt.h>

#include "internal_vm.h"

#define RD	KVM_INTERNAL_READ
#define WR	KVM_INTERNAL_WRITE
#define EX	KVM_INTERNAL_EXEC
#define DEV	KVM_INTERNAL_DEVICE

/* Long for a guest that exits, short for one that does not. */
#define LONG	(20 * NSEC_PER_SEC)
#define SHORT	(20 * NSEC_PER_MSEC)

/* --- the guest: x0, x1, x2 are its arguments; it has no stack ------------------ */

asm("	.pushsection .rodata, \"a\"\n"
"	.balign 8\n"
"guest_begin:\n"
/* FNV-1a of x1 bytes at x0 */
"guest_hash:\n"
"	ldr	x2, 3f\n"
"	ldr	x3, 4f\n"
"1:	cbz	x1, 2f\n"
"	ldrb	w4, [x0], #1\n"
"	eor	x2, x2, x4\n"
"	mul	x2, x2, x3\n"
"	sub	x1, x1, #1\n"
"	b	1b\n"
"2:	mov	x0, x2\n"
"	hvc	#0x42\n"
"3:	.quad	0xcbf29ce484222325\n"
"4:	.quad	0x100000001b3\n"
"guest_ldrb:	ldrb	w1, [x0]\n	hvc	#0\n"
"guest_ldrh:	ldrh	w1, [x0]\n	hvc	#0\n"
"guest_ldrw:	ldr	w1, [x0]\n	hvc	#0\n"
"guest_ldrx:	ldr	x1, [x0]\n	hvc	#0\n"
"guest_ldrsb:	ldrsb	x1, [x0]\n	hvc	#0\n"
"guest_ldrsh:	ldrsh	w1, [x0]\n	hvc	#0\n"
"guest_strb:	strb	w1, [x0]\n	hvc	#0\n"
"guest_strh:	strh	w1, [x0]\n	hvc	#0\n"
"guest_strw:	str	w1, [x0]\n	hvc	#0\n"
"guest_strx:	str	x1, [x0]\n	hvc	#0\n"
"guest_ldp:	ldp	x1, x2, [x0]\n	hvc	#0\n"
"guest_stp:	stp	x1, x2, [x0]\n	hvc	#0\n"
"guest_br:	br	x0\n"
"guest_hvc:	hvc	#0xbeef\n	hvc	#0xcafe\n"
"guest_trips:	hvc	#0\n	b	guest_trips\n"
"guest_smc:	smc	#0x12\n	hvc	#0\n"
"guest_wfi:	wfi\n	hvc	#0\n"
"guest_wfe:	wfe\n	wfe\n	wfe\n	hvc	#0\n"
"guest_fp:	fmov	d0, xzr\n	hvc	#0\n"
"guest_sve:	.inst	0x04e0e3e0\n	hvc	#0\n"	/* cntd x0 */
"guest_brk:	brk	#0\n"
"guest_sgi:	msr	S3_0_C12_C11_5, x0\n"		/* ICC_SGI1R_EL1 */
"guest_loop:	b	.\n"
/* Count in memory, forever. */
"guest_count:	ldr	x1, [x0]\n	add	x1, x1, #1\n	str	x1, [x0]\n	b	guest_count\n"
/* Ask for an interrupt of the timer now, and continue for a while. */
"guest_timer:	msr	cntv_tval_el0, xzr\n"
"	mov	x1, #1\n"
"	msr	cntv_ctl_el0, x1\n"
"	isb\n"
"	mov	x1, #0x10000\n"
"1:	sub	x1, x1, #1\n"
"	cbnz	x1, 1b\n"
"	hvc	#0\n"
/* Turn the MMU on, with no page tables; then an unaligned access. */
"guest_mmu:	mrs	x1, sctlr_el1\n"
"	orr	x1, x1, #1\n"
"	msr	sctlr_el1, x1\n"
"	isb\n"
"	ldr	x1, [x0, #1]\n"
"	hvc	#0\n"
"guest_sp:	mov	x0, sp\n	hvc	#0\n"
"guest_end:\n"
"	.popsection\n");

#define GUEST(name)	extern const char guest_##name[]
GUEST(begin); GUEST(end);
GUEST(hash); GUEST(hvc); GUEST(smc); GUEST(wfi); GUEST(wfe); GUEST(fp); GUEST(sve); GUEST(brk);
GUEST(ldrb); GUEST(ldrh); GUEST(ldrw); GUEST(ldrx); GUEST(ldrsb); GUEST(ldrsh);
GUEST(strb); GUEST(strh); GUEST(strw); GUEST(strx); GUEST(ldp); GUEST(stp); GUEST(br);
GUEST(trips); GUEST(sgi); GUEST(loop); GUEST(count); GUEST(timer); GUEST(mmu); GUEST(sp);

static u64 host_hash(const u8 *data, size_t len)
{
	u64 hash = 0xcbf29ce484222325;

	while (len--)
		hash = (hash ^ *data++) * 0x100000001b3;
	return hash;
}

/* A VM with a page of code, a page of data, and a vCPU. */
struct fixture {
	struct kvm *kvm;
	struct kvm_vcpu *vcpu;
	void *code;
	void *data;
	struct kvm_internal_exit exit;
};

static phys_addr_t data_pa(struct fixture *f)
{
	return __pa(f->data);
}

static void fixture_exit(struct fixture *f)
{
	if (!IS_ERR_OR_NULL(f->kvm))
		kvm_internal_vm_destroy(f->kvm);
	free_page((unsigned long)f->code);
	free_page((unsigned long)f->data);
}

static int fixture_init(struct fixture *f, const char *name)
{
	int ret;

	f->code = (void *)get_zeroed_page(GFP_KERNEL);
	f->data = (void *)get_zeroed_page(GFP_KERNEL);
	if (!f->code || !f->data)
		return -ENOMEM;
	memcpy(f->code, guest_begin, guest_end - guest_begin);

	f->kvm = kvm_internal_vm_create(name);
	if (IS_ERR(f->kvm))
		return PTR_ERR(f->kvm);
	ret = kvm_internal_vm_add_range(f->kvm, __pa(f->code), PAGE_SIZE, RD | EX);
	if (!ret)
		ret = kvm_internal_vm_add_range(f->kvm, __pa(f->data), PAGE_SIZE, RD | WR);
	if (ret)
		return ret;
	f->vcpu = kvm_internal_vcpu_create(f->kvm, 0);
	return PTR_ERR_OR_ZERO(f->vcpu);
}

static int start(struct fixture *f, const char *entry, u64 x0, u64 x1)
{
	struct kvm_internal_regs regs = {
		.x = { x0, x1 },
		.pc = __pa(f->code) + (entry - guest_begin),
	};

	return kvm_internal_vcpu_set_regs(f->vcpu, &regs);
}

static int run(struct fixture *f, u64 timeout)
{
	return kvm_internal_vcpu_run(f->vcpu, timeout, &f->exit);
}

static int start_and_run(struct fixture *f, const char *entry, u64 x0, u64 x1)
{
	return start(f, entry, x0, x1) ?: run(f, LONG);
}

static u64 x(struct fixture *f, int n)
{
	struct kvm_internal_regs regs;

	return kvm_internal_vcpu_get_regs(f->vcpu, &regs) ? ~0 : regs.x[n];
}

#define EXPECT_EXIT(test, f, ret, why)						\
do {										\
	struct kunit *__test = test;						\
										\
	KUNIT_ASSERT_EQ(__test, ret, 0);					\
	KUNIT_ASSERT_EQ(__test, (f)->exit.reason, KVM_INTERNAL_EXIT_##why);	\
} while (0)

#define EXPECT_FAULT(test, f, ret, addr, how, why)				\
do {										\
	struct kvm_internal_exit *__e = &(f)->exit;				\
	struct kunit *__t = test;						\
										\
	KUNIT_ASSERT_EQ(__t, ret, 0);						\
	KUNIT_ASSERT_EQ(__t, __e->reason, KVM_INTERNAL_EXIT_FAULT);		\
	KUNIT_EXPECT_EQ(__t, __e->fault.ipa, addr);				\
	KUNIT_EXPECT_EQ(__t, __e->fault.access, how);			\
	KUNIT_EXPECT_EQ(__t, __e->fault.cause, KVM_INTERNAL_FAULT_##why);	\
} while (0)

static int test_init(struct kunit *test)
{
	struct fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, f);
	test->priv = f;
	if (is_protected_kvm_enabled() || !is_kvm_arm_initialised())
		return 0;
	return fixture_init(f, "kunit");
}

static void test_exit(struct kunit *test)
{
	if (test->priv)
		fixture_exit(test->priv);
}

static struct fixture *fixture(struct kunit *test)
{
	if (is_protected_kvm_enabled())
		kunit_skip(test, "pKVM has no internal VMs");
	if (!is_kvm_arm_initialised())
		kunit_skip(test, "there is no KVM");
	return test->priv;
}

/* --- refused calls --------------------------------------------------------- */

static void pkvm(struct kunit *test)
{
	struct kvm *kvm = kvm_internal_vm_create("pkvm");

	if (is_protected_kvm_enabled())
		KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(kvm), -EOPNOTSUPP);
	else if (!is_kvm_arm_initialised())
		KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(kvm), -ENODEV);
	else
		KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(kvm), 0);
	if (!IS_ERR(kvm))
		kvm_internal_vm_destroy(kvm);
}

static void names(struct kunit *test)
{
	char name[KVM_INTERNAL_NAME_LEN + 2];
	struct kvm *kvm;

	fixture(test);
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';

	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(kvm_internal_vm_create("")), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(kvm_internal_vm_create("a/b")), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(kvm_internal_vm_create(name)), -EINVAL);

	kvm = kvm_internal_vm_create(name + 1);
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(kvm), 0);
	kvm_internal_vm_destroy(kvm);
}

static int leaf(struct kvm *kvm, phys_addr_t addr, kvm_pte_t *pte)
{
	s8 level;

	write_lock(&kvm->mmu_lock);
	WARN_ON(kvm_pgtable_get_leaf(kvm->arch.mmu.pgt, addr, pte, &level));
	write_unlock(&kvm->mmu_lock);
	return kvm_pte_valid(*pte) ? level : -1;
}

/* Exact number of pages in stage 2's tables: the counters have parts on each CPU. */
static long page_tables(void)
{
	struct pglist_data *pgdat;
	long nr = 0;
	int cpu;

	for_each_online_pgdat(pgdat) {
		nr += atomic_long_read(&pgdat->vm_stat[NR_SECONDARY_PAGETABLE]);
		for_each_possible_cpu(cpu)
			nr += per_cpu_ptr(pgdat->per_cpu_nodestats,
					  cpu)->vm_node_stat_diff[NR_SECONDARY_PAGETABLE];
	}
	return nr;
}

/* Adding the range fails, and maps nothing. */
#define EXPECT_REFUSED(test, vm, start, size, flags, error)			\
do {										\
	struct kunit *__test = test;						\
	struct kvm *__kvm = vm;							\
	phys_addr_t __start = start;						\
	long __tables = page_tables();						\
	u64 __size = size;							\
	kvm_pte_t __pte;							\
										\
	KUNIT_EXPECT_EQ(__test, kvm_internal_vm_add_range(__kvm, __start, __size, flags), \
			error);							\
	KUNIT_EXPECT_EQ(__test, page_tables(), __tables);			\
	if (__start < kvm_phys_size(&__kvm->arch.mmu))				\
		KUNIT_EXPECT_EQ(__test, leaf(__kvm, ALIGN_DOWN(__start, PAGE_SIZE), &__pte), -1); \
	KUNIT_EXPECT_EQ(__test, kvm_internal_vm_remove_range(__kvm, __start, __size), -ENOENT); \
} while (0)

static void ranges_refused(struct kunit *test)
{
	struct kvm *kvm = fixture(test)->kvm;
	phys_addr_t ram = memblock_start_of_DRAM(), limit = kvm_phys_size(&kvm->arch.mmu);
	struct page *page = alloc_page(GFP_KERNEL);
	phys_addr_t pa;

	KUNIT_ASSERT_NOT_NULL(test, page);
	pa = page_to_phys(page);

	EXPECT_REFUSED(test, kvm, pa, 0, RD, -EINVAL);
	EXPECT_REFUSED(test, kvm, pa + 8, PAGE_SIZE, RD, -EINVAL);
	EXPECT_REFUSED(test, kvm, pa, PAGE_SIZE - 8, RD, -EINVAL);
	EXPECT_REFUSED(test, kvm, pa, PAGE_SIZE, 0, -EINVAL);
	EXPECT_REFUSED(test, kvm, pa, PAGE_SIZE, WR, -EINVAL);
	EXPECT_REFUSED(test, kvm, pa, PAGE_SIZE, RD | BIT(4), -EINVAL);
	EXPECT_REFUSED(test, kvm, pa, -PAGE_SIZE, RD, -EOVERFLOW);
	EXPECT_REFUSED(test, kvm, -PAGE_SIZE, 2 * PAGE_SIZE, RD, -EOVERFLOW);
	EXPECT_REFUSED(test, kvm, limit, PAGE_SIZE, RD, -ERANGE);
	EXPECT_REFUSED(test, kvm, limit - PAGE_SIZE, 2 * PAGE_SIZE, RD, -ERANGE);

	/* Not RAM: the page before the first one of RAM. */
	EXPECT_REFUSED(test, kvm, ram - PAGE_SIZE, PAGE_SIZE, RD, -EPERM);
	EXPECT_REFUSED(test, kvm, limit - PAGE_SIZE, PAGE_SIZE, RD, -EPERM);
	EXPECT_REFUSED(test, kvm, ram - PAGE_SIZE, PAGE_SIZE, RD | EX | DEV, -EINVAL);
	EXPECT_REFUSED(test, kvm, pa, PAGE_SIZE, RD | DEV, -EPERM);
	EXPECT_REFUSED(test, kvm, ram - PAGE_SIZE, 2 * PAGE_SIZE, RD, -EXDEV);
	EXPECT_REFUSED(test, kvm, ram - PAGE_SIZE, 2 * PAGE_SIZE, RD | DEV, -EXDEV);

	__free_page(page);
}

static void no_linear_map(struct kunit *test)
{
	struct kvm *kvm = fixture(test)->kvm;
	struct page *pages = alloc_pages(GFP_KERNEL, 1);
	phys_addr_t pa;

	KUNIT_ASSERT_NOT_NULL(test, pages);
	pa = page_to_phys(pages);

	KUNIT_ASSERT_TRUE(test, can_set_direct_map());
	KUNIT_EXPECT_EQ(test, set_direct_map_invalid_noflush(pages + 1), 0);
	EXPECT_REFUSED(test, kvm, pa, 2 * PAGE_SIZE, RD, -EFAULT);
	KUNIT_EXPECT_EQ(test, set_direct_map_default_noflush(pages + 1), 0);

	KUNIT_EXPECT_EQ(test, memblock_mark_nomap(pa + PAGE_SIZE, PAGE_SIZE), 0);
	EXPECT_REFUSED(test, kvm, pa, 2 * PAGE_SIZE, RD, -EFAULT);
	KUNIT_EXPECT_EQ(test, memblock_clear_nomap(pa + PAGE_SIZE, PAGE_SIZE), 0);

	KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, pa, 2 * PAGE_SIZE, RD), 0);
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, pa, 2 * PAGE_SIZE), 0);
	__free_pages(pages, 1);
}

static void ranges_overlap(struct kunit *test)
{
	struct kvm *kvm = fixture(test)->kvm;
	struct page *pages = alloc_pages(GFP_KERNEL, 3);
	phys_addr_t pa;
	kvm_pte_t pte;

	KUNIT_ASSERT_NOT_NULL(test, pages);
	pa = page_to_phys(pages);

	/* Pages 2 to 4 of 8. */
	KUNIT_ASSERT_EQ(test, kvm_internal_vm_add_range(kvm, pa + 2 * PAGE_SIZE, 3 * PAGE_SIZE,
							RD), 0);

#define OVERLAPS(from, nr) \
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, pa + (from) * PAGE_SIZE,	\
							(nr) * PAGE_SIZE, RD), -EEXIST)
	OVERLAPS(2, 3);
	OVERLAPS(1, 2);
	OVERLAPS(4, 2);
	OVERLAPS(3, 1);
	OVERLAPS(0, 8);
	KUNIT_EXPECT_EQ(test, leaf(kvm, pa, &pte), -1);
	KUNIT_EXPECT_EQ(test, leaf(kvm, pa + 5 * PAGE_SIZE, &pte), -1);

	/* Neighbours do not overlap. */
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, pa + PAGE_SIZE, PAGE_SIZE, RD), 0);
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, pa + 5 * PAGE_SIZE, PAGE_SIZE,
							RD), 0);

	/* Only a whole range can be removed. */
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, pa + 2 * PAGE_SIZE, PAGE_SIZE),
			-ENOENT);
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, pa + PAGE_SIZE, 4 * PAGE_SIZE),
			-ENOENT);
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, pa + 2 * PAGE_SIZE,
							   3 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, leaf(kvm, pa + 2 * PAGE_SIZE, &pte), -1);
	KUNIT_EXPECT_EQ(test, leaf(kvm, pa + PAGE_SIZE, &pte), KVM_PGTABLE_LAST_LEVEL);

	/* Destroying the VM removes the rest, before the memory is freed. */
	fixture_exit(test->priv);
	test->priv = NULL;
	__free_pages(pages, 3);
}

static void vcpus_refused(struct kunit *test)
{
	struct fixture *f = fixture(test);

	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(kvm_internal_vcpu_create(f->kvm, 0)), -EEXIST);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(kvm_internal_vcpu_create(f->kvm, UINT_MAX)),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(kvm_internal_vcpu_create(f->kvm, 1)), 0);
	KUNIT_EXPECT_EQ(test, run(f, 0), -EINVAL);
}

/* --- page tables ------------------------------------------------------------ */

static u64 memattr(kvm_pte_t pte)
{
	return pte & GENMASK(5, 2);
}

static void leaves(struct kunit *test)
{
	struct kvm *kvm = fixture(test)->kvm;
	bool fwb = cpus_have_final_cap(ARM64_HAS_STAGE2_FWB);
	phys_addr_t pa, device = memblock_start_of_DRAM() - PAGE_SIZE;
	unsigned int order = PMD_SHIFT - PAGE_SHIFT;
	struct page *pages;
	kvm_pte_t pte;

	/* A page, with each set of rights. */
	pages = alloc_page(GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	pa = page_to_phys(pages);
	for (unsigned int flags = RD; flags <= (RD | WR | EX); flags += 2) {
		enum kvm_pgtable_prot prot = KVM_PGTABLE_PROT_R;

		if (flags & WR)
			prot |= KVM_PGTABLE_PROT_W;
		if (flags & EX)
			prot |= KVM_PGTABLE_PROT_X;
		KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, pa, PAGE_SIZE, flags), 0);
		KUNIT_EXPECT_EQ(test, leaf(kvm, pa, &pte), KVM_PGTABLE_LAST_LEVEL);
		KUNIT_EXPECT_EQ(test, kvm_pte_to_phys(pte), pa);
		KUNIT_EXPECT_EQ(test, (int)kvm_pgtable_stage2_pte_prot(pte), (int)prot);
		KUNIT_EXPECT_EQ(test, memattr(pte), PTE_S2_MEMATTR(fwb ? MT_S2_FWB_NORMAL :
								   MT_S2_NORMAL));
		KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, pa, PAGE_SIZE), 0);
		KUNIT_EXPECT_EQ(test, leaf(kvm, pa, &pte), -1);
	}
	__free_page(pages);

	/* A device. */
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, device, PAGE_SIZE,
							RD | WR | DEV), 0);
	KUNIT_EXPECT_EQ(test, leaf(kvm, device, &pte), KVM_PGTABLE_LAST_LEVEL);
	KUNIT_EXPECT_EQ(test, memattr(pte), PTE_S2_MEMATTR(1)); /* Device-nGnRE */
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, device, PAGE_SIZE), 0);

	/* A block; a block without its first page; pages around the border of two blocks. */
	if (order + 1 <= MAX_PAGE_ORDER) {
		pages = alloc_pages(GFP_KERNEL, order + 1);
		KUNIT_ASSERT_NOT_NULL(test, pages);
		pa = page_to_phys(pages);

		KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, pa, 2 * PMD_SIZE, RD), 0);
		KUNIT_EXPECT_EQ(test, leaf(kvm, pa, &pte), KVM_PGTABLE_LAST_LEVEL - 1);
		KUNIT_EXPECT_EQ(test, leaf(kvm, pa + PMD_SIZE, &pte), KVM_PGTABLE_LAST_LEVEL - 1);
		KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, pa, 2 * PMD_SIZE), 0);

		KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, pa + PAGE_SIZE,
								2 * PMD_SIZE - PAGE_SIZE, RD), 0);
		KUNIT_EXPECT_EQ(test, leaf(kvm, pa, &pte), -1);
		KUNIT_EXPECT_EQ(test, leaf(kvm, pa + PAGE_SIZE, &pte), KVM_PGTABLE_LAST_LEVEL);
		KUNIT_EXPECT_EQ(test, leaf(kvm, pa + PMD_SIZE, &pte), KVM_PGTABLE_LAST_LEVEL - 1);
		KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, pa + PAGE_SIZE,
								   2 * PMD_SIZE - PAGE_SIZE), 0);

		KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, pa + PMD_SIZE - PAGE_SIZE,
								2 * PAGE_SIZE, RD), 0);
		KUNIT_EXPECT_EQ(test, leaf(kvm, pa + PMD_SIZE - PAGE_SIZE, &pte),
				KVM_PGTABLE_LAST_LEVEL);
		KUNIT_EXPECT_EQ(test, leaf(kvm, pa + PMD_SIZE, &pte), KVM_PGTABLE_LAST_LEVEL);
		KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, pa + PMD_SIZE - PAGE_SIZE,
								   2 * PAGE_SIZE), 0);
		__free_pages(pages, order + 1);
	}
}

/* RAM behind the kernel, whose data may not be in the linear map. */
static phys_addr_t behind_kernel(u64 align)
{
	return ALIGN(max(memblock_start_of_DRAM(), __pa_symbol(_end)), align);
}

/* RAM for two of the largest blocks, whoever uses it: the guest only reads it. */
static phys_addr_t two_chunks(struct kunit *test, u64 *chunk)
{
	phys_addr_t start;

	*chunk = kvm_granule_size(KVM_PGTABLE_MIN_BLOCK_LEVEL);
	start = behind_kernel(*chunk);
	if (!memblock_is_region_memory(start, 2 * *chunk))
		kunit_skip(test, "not enough RAM for two blocks of %llu MiB", *chunk / SZ_1M);
	return start;
}

static void largest_blocks(struct kunit *test)
{
	/* Without the ranges of the fixture, which would overlap. */
	struct kvm *kvm = (fixture(test), kvm_internal_vm_create("blocks"));
	u64 chunk;
	phys_addr_t start = two_chunks(test, &chunk);
	long tables = page_tables();
	kvm_pte_t pte;

	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(kvm), 0);
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, start, 2 * chunk, RD), 0);
	KUNIT_EXPECT_EQ(test, leaf(kvm, start, &pte), KVM_PGTABLE_MIN_BLOCK_LEVEL);
	KUNIT_EXPECT_EQ(test, leaf(kvm, start + chunk, &pte), KVM_PGTABLE_MIN_BLOCK_LEVEL);
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, start, 2 * chunk), 0);

	/* All levels of block in one range. */
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, start + PAGE_SIZE,
							2 * chunk - 2 * PAGE_SIZE, RD), 0);
	KUNIT_EXPECT_EQ(test, leaf(kvm, start + PAGE_SIZE, &pte), KVM_PGTABLE_LAST_LEVEL);
	KUNIT_EXPECT_EQ(test, leaf(kvm, start + chunk - PAGE_SIZE, &pte),
			KVM_PGTABLE_LAST_LEVEL - (chunk > PMD_SIZE));
	KUNIT_EXPECT_EQ(test, leaf(kvm, start + 2 * chunk - 2 * PAGE_SIZE, &pte),
			KVM_PGTABLE_LAST_LEVEL);
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, start + PAGE_SIZE,
							   2 * chunk - 2 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, page_tables(), tables);
	kvm_internal_vm_destroy(kvm);
}

/* The allocation of tables before chunk NR fails after GOT of them. */
static struct {
	int nr;
	int got;
} topup_fails;

static int failing_topup(struct kvm_mmu_memory_cache *cache, int nr)
{
	int got = topup_fails.nr-- ? nr : topup_fails.got;
	int ret = __kvm_mmu_topup_memory_cache(cache, nr, got);

	while (got < cache->nobjs)
		free_page((unsigned long)cache->objects[--cache->nobjs]);
	return got < nr ? -ENOMEM : ret;
}

static void no_memory(struct kunit *test)
{
	struct kvm *kvm = (fixture(test), kvm_internal_vm_create("nomem"));
	u64 chunk;
	phys_addr_t start = two_chunks(test, &chunk) + PAGE_SIZE;
	u64 size = 2 * chunk - 2 * PAGE_SIZE;
	kvm_pte_t pte;

	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(kvm), 0);
	for (int nr = 0; nr < 2; nr++) {
		for (int got = 0; got <= kvm_mmu_cache_min_pages(&kvm->arch.mmu); got++) {
			topup_fails.nr = nr;
			topup_fails.got = got;
			kunit_activate_static_stub(test, internal_topup, failing_topup);
			EXPECT_REFUSED(test, kvm, start, size, RD, -ENOMEM);
			kunit_deactivate_static_stub(test, internal_topup);
			KUNIT_EXPECT_EQ(test, leaf(kvm, start + chunk, &pte), -1);
		}
	}
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, start, size, RD), 0);
	kvm_internal_vm_destroy(kvm);
}

#ifdef CONFIG_FAULT_INJECTION
/* Fail one allocation after the other, until none is left to fail. */
static bool fail_next(int *nr)
{
	bool over = *nr && READ_ONCE(current->fail_nth);

	WRITE_ONCE(current->fail_nth, over ? 0 : ++*nr);
	return !over;
}

static void each_allocation_fails(struct kunit *test)
{
	struct fixture *f = fixture(test);
	long tables = page_tables();
	struct kvm_vcpu *vcpu;
	struct page *page;
	struct kvm *kvm;
	int nr, ret, failed;

	/* At boot no failures are requested.  Not a skip, see runs_in_task(). */
	if (system_state != SYSTEM_RUNNING)
		return;

	page = alloc_page(GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, page);
	for (nr = 0, failed = 0; fail_next(&nr); ) {
		kvm = kvm_internal_vm_create("fail");
		if (!IS_ERR(kvm))
			kvm_internal_vm_destroy(kvm);
		else if (PTR_ERR(kvm) == -ENOMEM)
			failed++;
	}
	if (nr == 1)
		kunit_skip(test, "ignore-gfp-wait is set for failslab and fail_page_alloc");
	KUNIT_EXPECT_GT(test, failed, 10);
	KUNIT_EXPECT_EQ(test, page_tables(), tables);

	for (nr = 0, failed = 0; fail_next(&nr); ) {
		vcpu = kvm_internal_vcpu_create(f->kvm, nr);
		if (IS_ERR(vcpu) && PTR_ERR(vcpu) == -ENOMEM)
			failed++;
	}
	KUNIT_EXPECT_GT(test, failed, 0);

	for (nr = 0, failed = 0; fail_next(&nr); ) {
		ret = kvm_internal_vm_add_range(f->kvm, page_to_phys(page), PAGE_SIZE, RD);
		if (!ret)
			kvm_internal_vm_remove_range(f->kvm, page_to_phys(page), PAGE_SIZE);
		else if (ret == -ENOMEM)
			failed++;
	}
	KUNIT_EXPECT_GT(test, failed, 0);
	KUNIT_EXPECT_EQ(test, page_tables(), tables);
	__free_page(page);
}
#endif

/* --- exits ------------------------------------------------------------------ */

static void computes(struct kunit *test)
{
	struct fixture *f = fixture(test);

	get_random_bytes(f->data, PAGE_SIZE);
	EXPECT_EXIT(test, f, start_and_run(f, guest_hash, data_pa(f), PAGE_SIZE), HVC);
	KUNIT_EXPECT_EQ(test, f->exit.call.imm, 0x42);
	KUNIT_EXPECT_EQ(test, f->exit.call.args[0], host_hash(f->data, PAGE_SIZE));
}

static void hvc(struct kunit *test)
{
	struct fixture *f = fixture(test);
	struct kvm_internal_regs regs = {
		.x = { 10, 11, 12, 13, 14, 15, 16, 17, 18 },
		.pc = __pa(f->code) + (guest_hvc - guest_begin),
	};

	KUNIT_ASSERT_EQ(test, kvm_internal_vcpu_set_regs(f->vcpu, &regs), 0);
	EXPECT_EXIT(test, f, run(f, LONG), HVC);
	KUNIT_EXPECT_EQ(test, f->exit.call.imm, 0xbeef);
	for (int i = 0; i < ARRAY_SIZE(f->exit.call.args); i++)
		KUNIT_EXPECT_EQ(test, f->exit.call.args[i], 10 + i);
	EXPECT_EXIT(test, f, run(f, LONG), HVC);
	KUNIT_EXPECT_EQ(test, f->exit.call.imm, 0xcafe);
}

static void registers(struct kunit *test)
{
	struct fixture *f = fixture(test);
	struct kvm_internal_regs in = {
		.sp = 0x1230,
		.pc = __pa(f->code) + (guest_sp - guest_begin),
	};
	struct kvm_internal_regs out;

	for (int i = 0; i < ARRAY_SIZE(in.x); i++)
		in.x[i] = 0x100 + i;
	KUNIT_ASSERT_EQ(test, kvm_internal_vcpu_set_regs(f->vcpu, &in), 0);
	EXPECT_EXIT(test, f, run(f, LONG), HVC);
	KUNIT_ASSERT_EQ(test, kvm_internal_vcpu_get_regs(f->vcpu, &out), 0);
	KUNIT_EXPECT_EQ(test, out.x[0], in.sp);
	KUNIT_EXPECT_EQ(test, out.sp, in.sp);
	KUNIT_EXPECT_EQ(test, out.pc, in.pc + 8);
	for (int i = 1; i < ARRAY_SIZE(in.x); i++)
		KUNIT_EXPECT_EQ(test, out.x[i], in.x[i]);
}

/* Calls of the firmware go to the caller: none of them powers off or suspends the vCPU. */
static void psci(struct kunit *test)
{
	static const u64 calls[] = { 0x84000000, 0x84000002, 0xc4000001, 0xc4000003,
				     0x84000008, 0x84000009, 0xc400000e, 0x80000001 };
	struct fixture *f = fixture(test);

	for (int i = 0; i < ARRAY_SIZE(calls); i++) {
		EXPECT_EXIT(test, f, start_and_run(f, guest_hvc, calls[i], 0), HVC);
		KUNIT_EXPECT_EQ(test, f->exit.call.args[0], calls[i]);
		EXPECT_EXIT(test, f, run(f, LONG), HVC);
		KUNIT_EXPECT_EQ(test, x(f, 0), calls[i]);

		EXPECT_EXIT(test, f, start_and_run(f, guest_smc, calls[i], 0), SMC);
		KUNIT_EXPECT_EQ(test, f->exit.call.args[0], calls[i]);
		KUNIT_EXPECT_EQ(test, f->exit.call.imm, 0x12);
		EXPECT_EXIT(test, f, run(f, LONG), HVC);
		KUNIT_EXPECT_EQ(test, x(f, 0), calls[i]);
	}
}

static const struct mmio_case {
	const char *name;
	const char *entry;
	u8 size;
	bool write;
	u64 expect;	/* of 0x8182838485868788 */
} mmio_cases[] = {
	{ "ldrb", guest_ldrb, 1, false, 0x88 },
	{ "ldrh", guest_ldrh, 2, false, 0x8788 },
	{ "ldr w", guest_ldrw, 4, false, 0x85868788 },
	{ "ldr x", guest_ldrx, 8, false, 0x8182838485868788 },
	{ "ldrsb x", guest_ldrsb, 1, false, 0xffffffffffffff88 },
	{ "ldrsh w", guest_ldrsh, 2, false, 0xffff8788 },
	{ "strb", guest_strb, 1, true, 0x88 },
	{ "strh", guest_strh, 2, true, 0x8788 },
	{ "str w", guest_strw, 4, true, 0x85868788 },
	{ "str x", guest_strx, 8, true, 0x8182838485868788 },
};

static void mmio(struct kunit *test)
{
	const u64 value = 0x8182838485868788;
	struct fixture *f = fixture(test);

	for (int i = 0; i < ARRAY_SIZE(mmio_cases); i++) {
		const struct mmio_case *c = &mmio_cases[i];

		EXPECT_EXIT(test, f, start_and_run(f, c->entry, 0x9000010, value), MMIO);
		KUNIT_EXPECT_EQ(test, f->exit.mmio.addr, 0x9000010);
		KUNIT_EXPECT_EQ_MSG(test, f->exit.mmio.size, c->size, "%s", c->name);
		KUNIT_EXPECT_EQ_MSG(test, f->exit.mmio.write, c->write, "%s", c->name);
		if (c->write)
			KUNIT_EXPECT_EQ_MSG(test, f->exit.mmio.data, c->expect, "%s", c->name);
		else
			f->exit.mmio.data = value;
		EXPECT_EXIT(test, f, run(f, LONG), HVC);
		if (!c->write)
			KUNIT_EXPECT_EQ_MSG(test, x(f, 1), c->expect, "%s", c->name);
	}
}

/* New registers drop an access that waits for its data. */
static void mmio_dropped(struct kunit *test)
{
	struct fixture *f = fixture(test);

	EXPECT_EXIT(test, f, start_and_run(f, guest_ldrx, 0x9000000, 0), MMIO);
	f->exit.mmio.data = ~0;
	EXPECT_EXIT(test, f, start_and_run(f, guest_hvc, 1, 2), HVC);
	KUNIT_EXPECT_EQ(test, f->exit.call.imm, 0xbeef);
	KUNIT_EXPECT_EQ(test, x(f, 1), 2);
}

static void faults(struct kunit *test)
{
	struct fixture *f = fixture(test);
	struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	phys_addr_t pa;

	KUNIT_ASSERT_NOT_NULL(test, page);
	pa = page_to_phys(page);

	/* Missing: no syndrome for emulating the access. */
	EXPECT_FAULT(test, f, start_and_run(f, guest_ldp, pa + 16, 0), pa + 16, RD, MISSING);
	EXPECT_FAULT(test, f, start_and_run(f, guest_stp, pa + 32, 0), pa + 32, WR, MISSING);
	EXPECT_FAULT(test, f, start_and_run(f, guest_br, pa + 64, 0), pa + 64, EX, MISSING);
	/* The owner may add what is missing. */
	EXPECT_FAULT(test, f, start_and_run(f, guest_ldp, pa, 7), pa, RD, MISSING);
	KUNIT_ASSERT_EQ(test, kvm_internal_vm_add_range(f->kvm, pa, PAGE_SIZE, RD), 0);
	EXPECT_EXIT(test, f, run(f, LONG), HVC);
	KUNIT_EXPECT_EQ(test, x(f, 1), 0);

	/* Read only. */
	EXPECT_FAULT(test, f, start_and_run(f, guest_strx, pa + 8, 1), pa + 8, WR, PERMISSION);
	EXPECT_FAULT(test, f, start_and_run(f, guest_stp, pa + 16, 1), pa + 16, WR, PERMISSION);
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(page_address(page), 0, PAGE_SIZE), NULL);
	/* No execute. */
	EXPECT_FAULT(test, f, start_and_run(f, guest_br, pa + 4, 0), pa + 4, EX, PERMISSION);
	EXPECT_FAULT(test, f, start_and_run(f, guest_br, data_pa(f), 0), data_pa(f), EX,
		     PERMISSION);

	KUNIT_ASSERT_EQ(test, kvm_internal_vm_remove_range(f->kvm, pa, PAGE_SIZE), 0);
	EXPECT_FAULT(test, f, start_and_run(f, guest_ldp, pa, 0), pa, RD, MISSING);
	__free_page(page);
}

static void waits(struct kunit *test)
{
	struct fixture *f = fixture(test);

	EXPECT_EXIT(test, f, start_and_run(f, guest_wfi, 0, 0), WFI);
	EXPECT_EXIT(test, f, run(f, LONG), HVC);
	/* WFE does not wait: nobody sends an event. */
	EXPECT_EXIT(test, f, start_and_run(f, guest_wfe, 0, 0), HVC);
}

static void fpsimd(struct kunit *test)
{
	struct fixture *f = fixture(test);

	EXPECT_EXIT(test, f, start_and_run(f, guest_fp, 0, 0), FPSIMD);
	KUNIT_EXPECT_EQ(test, ESR_ELx_EC(f->exit.esr), ESR_ELx_EC_FP_ASIMD);
	/* Not just the first time. */
	EXPECT_EXIT(test, f, run(f, LONG), FPSIMD);
	if (system_supports_sve()) {
		EXPECT_EXIT(test, f, start_and_run(f, guest_sve, 0, 0), FPSIMD);
		KUNIT_EXPECT_EQ(test, ESR_ELx_EC(f->exit.esr), ESR_ELx_EC_SVE);
	}
}

/* Exceptions of EL1 go to its vectors at 0, which is in no range. */
static void exceptions(struct kunit *test)
{
	struct fixture *f = fixture(test);

	EXPECT_FAULT(test, f, start_and_run(f, guest_brk, 0, 0), 0x200, EX, MISSING);
	EXPECT_FAULT(test, f, start_and_run(f, guest_sgi, 0, 0), 0x200, EX, MISSING);
}

static void timer_interrupts_nobody(struct kunit *test)
{
	struct fixture *f = fixture(test);

	EXPECT_EXIT(test, f, start_and_run(f, guest_timer, 0, 0), HVC);
	/* The timer's line is still high. */
	EXPECT_EXIT(test, f, start_and_run(f, guest_hvc, 0, 0), HVC);
}

static void stage_1_stays_off(struct kunit *test)
{
	struct fixture *f = fixture(test);

	*(u64 *)(f->data + 8) = 0x1122334455667788;
	EXPECT_EXIT(test, f, start_and_run(f, guest_mmu, data_pa(f) + 8, 0), HVC);
	KUNIT_EXPECT_EQ(test, x(f, 1), 0x11223344556677);
}

/* --- what ends a run ---------------------------------------------------------- */

static void timeout(struct kunit *test)
{
	struct fixture *f = fixture(test);
	u64 before, after;

	KUNIT_ASSERT_EQ(test, start(f, guest_loop, 0, 0), 0);
	for (int i = 0; i < 3; i++) {
		before = ktime_get_ns();
		EXPECT_EXIT(test, f, run(f, SHORT), TIMEOUT);
		after = ktime_get_ns();
		KUNIT_EXPECT_GE(test, after - before, SHORT);
		KUNIT_EXPECT_LT(test, after - before, LONG);
	}
	/* The shortest timeout, and one that does not fit into ktime_t. */
	EXPECT_EXIT(test, f, run(f, 1), TIMEOUT);
	EXPECT_EXIT(test, f, start(f, guest_hvc, 0, 0) ?: run(f, U64_MAX), HVC);
	/* A timeout that comes late does not end the next run. */
	for (int i = 1; i < 200; i++) {
		KUNIT_ASSERT_EQ(test, start(f, guest_hvc, 0, 0), 0);
		KUNIT_ASSERT_EQ(test, run(f, i * 1000), 0);
		EXPECT_EXIT(test, f, start_and_run(f, guest_hvc, 0, 0), HVC);
	}
}

/* A kthread that runs the guest, which counts. */
struct runner {
	struct fixture *f;
	struct task_struct *task;
	struct completion done;
	u64 timeout;
	int ret;
};

static int runner_fn(void *data)
{
	struct runner *r = data;

	allow_signal(SIGKILL);
	r->ret = run(r->f, r->timeout);
	complete_all(&r->done);
	return 0;
}

/* Returns once the guest counts. */
static int runner_start(struct runner *r, struct fixture *f, u64 timeout, int cpu)
{
	u64 *count = f->data;

	r->f = f;
	r->timeout = timeout;
	init_completion(&r->done);
	*count = 0;
	if (start(f, guest_count, data_pa(f), 0))
		return -EBUSY;
	r->task = kthread_create(runner_fn, r, "kvm-internal");
	if (IS_ERR(r->task))
		return PTR_ERR(r->task);
	get_task_struct(r->task);
	if (cpu >= 0)
		set_cpus_allowed_ptr(r->task, cpumask_of(cpu));
	wake_up_process(r->task);
	while (!READ_ONCE(*count) && !completion_done(&r->done))
		usleep_range(100, 200);
	return 0;
}

static bool runner_stop(struct runner *r)
{
	bool done;

	send_sig(SIGKILL, r->task, 1);
	done = wait_for_completion_timeout(&r->done, LONG / NSEC_PER_SEC * HZ / 2);
	/* Wait, at most for the time limit: the runner uses the fixture. */
	wait_for_completion(&r->done);
	put_task_struct(r->task);
	return done;
}

static void fatal_signal(struct kunit *test)
{
	struct fixture *f = fixture(test);
	struct runner r;

	KUNIT_ASSERT_EQ(test, runner_start(&r, f, 2 * LONG, -1), 0);
	KUNIT_ASSERT_TRUE(test, runner_stop(&r));
	EXPECT_EXIT(test, f, r.ret, INTERRUPTED);
}

static void busy(struct kunit *test)
{
	struct fixture *f = fixture(test);
	struct kvm_internal_regs regs = {};
	struct kvm_internal_exit exit;
	struct runner r;

	KUNIT_ASSERT_EQ(test, runner_start(&r, f, 2 * LONG, -1), 0);
	KUNIT_EXPECT_EQ(test, kvm_internal_vcpu_run(f->vcpu, SHORT, &exit), -EBUSY);
	KUNIT_EXPECT_EQ(test, kvm_internal_vcpu_set_regs(f->vcpu, &regs), -EBUSY);
	KUNIT_EXPECT_EQ(test, kvm_internal_vcpu_get_regs(f->vcpu, &regs), -EBUSY);
	KUNIT_ASSERT_TRUE(test, runner_stop(&r));
}

static void vcpu_thread(struct kunit *test)
{
	struct fixture *f = fixture(test);
	struct kvm_vcpu *other = kvm_internal_vcpu_create(f->kvm, 1);
	int ret;

	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(other), 0);
	KUNIT_ASSERT_EQ(test, start_and_run(f, guest_hvc, 0, 0), 0);
	vcpu_load(f->vcpu);
	ret = kvm_internal_vcpu_run(other, SHORT, &f->exit);
	vcpu_put(f->vcpu);
	KUNIT_EXPECT_EQ(test, ret, -EBUSY);
}

static void range_removed_while_running(struct kunit *test)
{
	struct fixture *f = fixture(test);
	struct runner r;

	KUNIT_ASSERT_EQ(test, runner_start(&r, f, 2 * LONG, -1), 0);
	KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(f->kvm, data_pa(f), PAGE_SIZE), 0);
	KUNIT_EXPECT_TRUE(test, wait_for_completion_timeout(&r.done, 5 * HZ));
	KUNIT_ASSERT_TRUE(test, runner_stop(&r));
	EXPECT_EXIT(test, f, r.ret, MMIO);
	KUNIT_EXPECT_EQ(test, f->exit.mmio.addr, data_pa(f));
}

static void cpu_offline_while_running(struct kunit *test)
{
	struct fixture *f = fixture(test);
	int cpu = cpumask_last(cpu_online_mask);
	u64 *count = f->data, before;
	struct runner r;

	if (!cpu)
		kunit_skip(test, "there is one CPU");
	KUNIT_ASSERT_EQ(test, runner_start(&r, f, 2 * LONG, cpu), 0);
	KUNIT_EXPECT_EQ(test, remove_cpu(cpu), 0);
	before = READ_ONCE(*count);
	while (READ_ONCE(*count) == before && !completion_done(&r.done))
		usleep_range(100, 200);
	KUNIT_EXPECT_EQ(test, add_cpu(cpu), 0);
	KUNIT_ASSERT_TRUE(test, runner_stop(&r));
	EXPECT_EXIT(test, f, r.ret, INTERRUPTED);
	KUNIT_EXPECT_GT(test, READ_ONCE(*count), before);
}

static void many_at_once(struct kunit *test)
{
	struct fixture *f = fixture(test), other[3] = {};
	struct runner r[ARRAY_SIZE(other)];
	int ret[ARRAY_SIZE(other)], i;
	bool stopped = true;

	for (i = 0; i < ARRAY_SIZE(other); i++) {
		ret[i] = fixture_init(&other[i], "kunit") ?:
			 runner_start(&r[i], &other[i], 2 * LONG, -1);
		KUNIT_EXPECT_EQ(test, ret[i], 0);
	}
	for (i = 0; i < 10; i++)
		KUNIT_EXPECT_EQ(test, start_and_run(f, guest_hash, data_pa(f), PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, f->exit.call.args[0], host_hash(f->data, PAGE_SIZE));
	for (i = 0; i < ARRAY_SIZE(other); i++)
		stopped &= !ret[i] && runner_stop(&r[i]);
	KUNIT_ASSERT_TRUE(test, stopped);
	for (i = 0; i < ARRAY_SIZE(other); i++) {
		KUNIT_EXPECT_EQ(test, other[i].exit.reason, KVM_INTERNAL_EXIT_INTERRUPTED);
		fixture_exit(&other[i]);
	}
}

/* --- leaks --------------------------------------------------------------------- */

static int debugfs_dirs(void)
{
	struct dentry *dir = debugfs_lookup("kvm", NULL), *child;
	int nr = 0;

	if (!dir)
		return -ENOENT;
	spin_lock(&dir->d_lock);
	hlist_for_each_entry(child, &dir->d_children, d_sib)
		nr += d_is_dir(child);
	spin_unlock(&dir->d_lock);
	dput(dir);
	return nr;
}

static void a_hundred(struct kunit *test)
{
	u64 created = (fixture(test), kvm_createvm_count), active = kvm_active_vms;
	int dirs = debugfs_dirs();
	long tables = page_tables();

	for (int i = 0; i < 100; i++) {
		struct fixture f = {};
		int ret = fixture_init(&f, "kunit");

		if (!ret)
			ret = start_and_run(&f, guest_hash, data_pa(&f), 16);
		if (!i)
			KUNIT_EXPECT_EQ(test, debugfs_dirs(), dirs + 1);
		KUNIT_EXPECT_GT(test, page_tables(), tables);
		fixture_exit(&f);
		KUNIT_ASSERT_EQ(test, ret, 0);
	}

	KUNIT_EXPECT_EQ(test, debugfs_dirs(), dirs);
	KUNIT_EXPECT_EQ(test, page_tables(), tables);
	KUNIT_EXPECT_EQ(test, kvm_createvm_count, created);
	KUNIT_EXPECT_EQ(test, kvm_active_vms, active);
}

/* A reader of debugfs keeps the VM, but not its memory. */
static void debugfs_open_at_destroy(struct kunit *test)
{
	struct fixture *f = fixture(test);
	struct kvm *kvm = f->kvm;
	kvm_pte_t pte;

	kvm_get_kvm(kvm);
	kvm_internal_vm_destroy(kvm);
	f->kvm = NULL;
	KUNIT_EXPECT_EQ(test, leaf(kvm, __pa(f->code), &pte), -1);
	KUNIT_EXPECT_EQ(test, leaf(kvm, data_pa(f), &pte), -1);
	kvm_put_kvm(kvm);
}

/* --- a task -------------------------------------------------------------------- */

static struct {
	bool ran;
	int ret;
	u64 is, expect;
	enum kvm_internal_exit_reason fp;
} in_task;

static int run_in_task(struct kunit_suite *suite)
{
	struct fixture f = {};

	in_task.ran = current->mm && is_kvm_arm_initialised() && !is_protected_kvm_enabled();
	if (!in_task.ran)
		return 0;
	in_task.ret = fixture_init(&f, "kunit");
	if (!in_task.ret) {
		get_random_bytes(f.data, PAGE_SIZE);
		in_task.ret = start_and_run(&f, guest_hash, data_pa(&f), PAGE_SIZE);
		in_task.is = f.exit.call.args[0];
		in_task.expect = host_hash(f.data, PAGE_SIZE);
	}
	/* The registers are those of the task, and a VM of userspace may have had them. */
	if (!in_task.ret) {
		in_task.ret = start_and_run(&f, guest_fp, 0, 0);
		in_task.fp = f.exit.reason;
	}
	fixture_exit(&f);
	return 0;
}

static void runs_in_task(struct kunit *test)
{
	fixture(test);
	/* Not a skip: KUnit would not run the case again when a task starts the suite. */
	if (!in_task.ran)
		return;
	KUNIT_ASSERT_EQ(test, in_task.ret, 0);
	KUNIT_EXPECT_EQ(test, in_task.is, in_task.expect);
	KUNIT_EXPECT_EQ(test, in_task.fp, KVM_INTERNAL_EXIT_FPSIMD);
}

/* The task of suite "spin" runs the guest for long, to be killed or frozen. */
static struct {
	int nr;
	int interrupted;
} spun;

static int spin_in_task(struct kunit_suite *suite)
{
	struct fixture f = {};
	int ret;

	if (!current->mm || !is_kvm_arm_initialised() || is_protected_kvm_enabled())
		return 0;
	ret = fixture_init(&f, "spin");
	if (!ret)
		ret = start(&f, guest_loop, 0, 0) ?: run(&f, 2 * LONG);
	spun.nr++;
	spun.interrupted += !ret && f.exit.reason == KVM_INTERNAL_EXIT_INTERRUPTED;
	fixture_exit(&f);
	return 0;
}

static void task_is_interrupted(struct kunit *test)
{
	fixture(test);
	KUNIT_EXPECT_EQ(test, spun.interrupted, spun.nr);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(pkvm),
	KUNIT_CASE(names),
	KUNIT_CASE(ranges_refused),
	KUNIT_CASE(no_linear_map),
	KUNIT_CASE(ranges_overlap),
	KUNIT_CASE(vcpus_refused),
	KUNIT_CASE(leaves),
	KUNIT_CASE(largest_blocks),
	KUNIT_CASE(no_memory),
#ifdef CONFIG_FAULT_INJECTION
	KUNIT_CASE(each_allocation_fails),
#endif
	KUNIT_CASE(computes),
	KUNIT_CASE(hvc),
	KUNIT_CASE(registers),
	KUNIT_CASE(psci),
	KUNIT_CASE(mmio),
	KUNIT_CASE(mmio_dropped),
	KUNIT_CASE(faults),
	KUNIT_CASE(waits),
	KUNIT_CASE(fpsimd),
	KUNIT_CASE(exceptions),
	KUNIT_CASE(timer_interrupts_nobody),
	KUNIT_CASE(stage_1_stays_off),
	KUNIT_CASE(timeout),
	KUNIT_CASE(fatal_signal),
	KUNIT_CASE(busy),
	KUNIT_CASE(vcpu_thread),
	KUNIT_CASE(range_removed_while_running),
	KUNIT_CASE(cpu_offline_while_running),
	KUNIT_CASE(many_at_once),
	KUNIT_CASE(a_hundred),
	KUNIT_CASE(debugfs_open_at_destroy),
	KUNIT_CASE(runs_in_task),
	KUNIT_CASE(task_is_interrupted),
	{}
};

static struct kunit_suite internal_vm_suite = {
	.name = "kvm_internal_vm",
	.suite_init = run_in_task,
	.init = test_init,
	.exit = test_exit,
	.test_cases = cases,
};

/* --- figures: "figure NAME VALUE", in ns, or instructions where a ns is one ------- */

#define ROUNDS	11
#define BATCH	16

/* No figures at boot: userspace requests them. */
static bool is_asked_for(struct kunit *test)
{
	fixture(test);
	return system_state == SYSTEM_RUNNING;
}

static int compare(const void *a, const void *b)
{
	return *(s64 *)a < *(s64 *)b ? -1 : 1;
}

static void say_figure(struct kunit *test, const char *name, s64 *samples, s64 per, s64 times)
{
	sort(samples, ROUNDS, sizeof(*samples), compare, NULL);
	kunit_info(test, "figure %s %lld\n", name, samples[ROUNDS / 2] * times / per);
}

static void round_trip(struct kunit *test)
{
	struct fixture *f = test->priv;
	s64 ns[ROUNDS];

	if (!is_asked_for(test))
		return;
	KUNIT_ASSERT_EQ(test, start_and_run(f, guest_trips, 0, 0), 0);
	for (int i = 0; i < ROUNDS; i++) {
		ns[i] = -ktime_get_ns();
		for (int j = 0; j < BATCH; j++)
			EXPECT_EXIT(test, f, run(f, LONG), HVC);
		ns[i] += ktime_get_ns();
	}
	say_figure(test, "internal_trip", ns, BATCH, 1);
}

static void life(struct kunit *test)
{
	phys_addr_t from = behind_kernel(SZ_256M);
	s64 ns[ROUNDS];

	if (!is_asked_for(test))
		return;
	for (int i = 0; i < ROUNDS; i++) {
		struct kvm *kvm;

		ns[i] = -ktime_get_ns();
		kvm = kvm_internal_vm_create("life");
		KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(kvm), 0);
		KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, from, SZ_256M, RD), 0);
		kvm_internal_vm_destroy(kvm);
		ns[i] += ktime_get_ns();
	}
	say_figure(test, "internal_life_256", ns, 1, 1);
}

/* Map @nr ranges of @size bytes, one at the start of each @step bytes. */
static void map_figure(struct kunit *test, const char *name, phys_addr_t from, int nr, u64 size,
		       u64 step)
{
	struct kvm *kvm = kvm_internal_vm_create("map");
	s64 ns[ROUNDS];

	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(kvm), 0);
	for (int i = 0; i < ROUNDS; i++) {
		ns[i] = -ktime_get_ns();
		for (int j = 0; j < nr; j++)
			KUNIT_EXPECT_EQ(test, kvm_internal_vm_add_range(kvm, from + j * step, size,
									RD), 0);
		ns[i] += ktime_get_ns();
		for (int j = 0; j < nr; j++)
			KUNIT_EXPECT_EQ(test, kvm_internal_vm_remove_range(kvm, from + j * step,
									   size), 0);
	}
	kvm_internal_vm_destroy(kvm);
	say_figure(test, name, ns, nr * size / SZ_1M, SZ_1K);
}

static void map(struct kunit *test)
{
	phys_addr_t from;
	u64 chunk;

	if (!is_asked_for(test))
		return;
	from = two_chunks(test, &chunk);
	map_figure(test, "internal_map_1g", from, 1, chunk, chunk);
	map_figure(test, "internal_map_2m", from + PMD_SIZE, 1, SZ_256M, SZ_256M);
	map_figure(test, "internal_map_4k", from, 16, PMD_SIZE / 2, PMD_SIZE);
}

static struct kunit_case bench_cases[] = {
	KUNIT_CASE(round_trip),
	KUNIT_CASE(life),
	KUNIT_CASE_SLOW(map),
	{}
};

static struct kunit_suite bench_suite = {
	.name = "kvm_internal_bench",
	.init = test_init,
	.exit = test_exit,
	.test_cases = bench_cases,
};

static void nothing(struct kunit *test)
{
}

static struct kunit_case spin_cases[] = {
	KUNIT_CASE(nothing),
	{}
};

static struct kunit_suite spin_suite = {
	.name = "kvm_internal_vm_spin",
	.suite_init = spin_in_task,
	.test_cases = spin_cases,
};

kunit_test_suites(&internal_vm_suite, &spin_suite, &bench_suite);

MODULE_DESCRIPTION("KUnit suite of KVM's internal VMs");
MODULE_LICENSE("GPL");
