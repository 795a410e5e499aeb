// SPDX-License-Identifier: GPL-2.0-only
/*
 * Internal VMs: VMs that the kernel makes for itself, without userspace, mm or
 * memslots.  See Documentation/virt/kvm/internal-vms.rst.
 *
 * Stage 2 is an identity map of the ranges that the owner has added.  The whole
 * range is mapped when it is added, so a fault has nothing to map: each fault
 * ends the run.  RAM is Normal Write-Back: guest and host see the same memory
 * without cache maintenance.
 */
#include <linux/cacheflush.h>
#include <linux/kvm_host.h>
#include <linux/kvm_internal_vm.h>
#include <linux/list.h>
#include <linux/memblock.h>
#include <linux/memory_hotplug.h>
#include <linux/overflow.h>
#include <linux/set_memory.h>
#include <linux/string.h>

#include <kunit/static_stub.h>

#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>
#include <asm/stage2_pgtable.h>
#include <asm/virt.h>

#include "internal_vm.h"

#define INTERNAL_RIGHTS	(KVM_INTERNAL_READ | KVM_INTERNAL_WRITE | KVM_INTERNAL_EXEC)

/* A range that is mapped.  In kvm->arch.internal_ranges, under kvm->slots_lock. */
struct internal_range {
	struct list_head node;
	phys_addr_t start;
	phys_addr_t last;
};

/* --- ranges ------------------------------------------------------------- */

/* Is the kernel's linear map of RAM complete?  Cache maintenance goes through it. */
static bool internal_has_linear_map(phys_addr_t start, phys_addr_t last)
{
	unsigned long pfn;

	for (pfn = PHYS_PFN(start); pfn <= PHYS_PFN(last); pfn++) {
		if (!kernel_page_present(pfn_to_page(pfn)))
			return false;
		if (!(pfn % PTRS_PER_PTE))
			cond_resched();
	}

	return true;
}

/* Do @flags fit the kind of memory in the range? */
static int internal_check_kind(phys_addr_t start, phys_addr_t last, unsigned int flags)
{
	struct memblock_region *region;
	u64 ram = 0;
	bool nomap = false;

	get_online_mems();
	for_each_mem_region(region) {
		phys_addr_t from = max(start, region->base);
		phys_addr_t to = min(last, region->base + region->size - 1);

		if (from > to)
			continue;
		ram += to - from + 1;
		nomap |= memblock_is_nomap(region);
	}
	put_online_mems();

	if (ram && ram != last - start + 1)
		return -EXDEV;
	if (!ram != !!(flags & KVM_INTERNAL_DEVICE))
		return -EPERM;
	if (ram && (nomap || !internal_has_linear_map(start, last)))
		return -EFAULT;

	return 0;
}

static int internal_check_range(struct kvm *kvm, phys_addr_t start, u64 size,
				unsigned int flags)
{
	struct internal_range *range;
	phys_addr_t last;

	if (flags & ~(INTERNAL_RIGHTS | KVM_INTERNAL_DEVICE) || !(flags & KVM_INTERNAL_READ))
		return -EINVAL;
	if ((flags & KVM_INTERNAL_DEVICE) && (flags & KVM_INTERNAL_EXEC))
		return -EINVAL;
	if (!size || !PAGE_ALIGNED(start) || !PAGE_ALIGNED(size))
		return -EINVAL;
	if (check_add_overflow(start, size - 1, &last))
		return -EOVERFLOW;
	if (last >= kvm_phys_size(&kvm->arch.mmu))
		return -ERANGE;

	list_for_each_entry(range, &kvm->arch.internal_ranges, node) {
		if (range->start <= last && start <= range->last)
			return -EEXIST;
	}

	return internal_check_kind(start, last, flags);
}

static enum kvm_pgtable_prot internal_prot(unsigned int flags)
{
	enum kvm_pgtable_prot prot = KVM_PGTABLE_PROT_R;

	if (flags & KVM_INTERNAL_WRITE)
		prot |= KVM_PGTABLE_PROT_W;
	if (flags & KVM_INTERNAL_EXEC)
		prot |= KVM_PGTABLE_PROT_X;
	if (flags & KVM_INTERNAL_DEVICE)
		prot |= KVM_PGTABLE_PROT_DEVICE;

	return prot;
}

static void internal_unmap(struct kvm *kvm, phys_addr_t start, u64 size)
{
	write_lock(&kvm->mmu_lock);
	kvm_stage2_unmap_range(&kvm->arch.mmu, start, size, true);
	write_unlock(&kvm->mmu_lock);
}

VISIBLE_IF_KUNIT int internal_topup(struct kvm_mmu_memory_cache *cache, int nr)
{
	KUNIT_STATIC_STUB_REDIRECT(internal_topup, cache, nr);
	return __kvm_mmu_topup_memory_cache(cache, nr, nr);
}

/*
 * The guest's data accesses are cacheable: only its instructions need maintenance. The
 * guest fetches them at another virtual address than the kernel, which an aliasing cache
 * distinguishes.
 */
static void internal_sync_code(phys_addr_t start, u64 size)
{
	phys_addr_t addr, next, end = start + size;

	for (addr = start; addr != end; addr = next) {
		next = min(end, ALIGN_DOWN(addr, PMD_SIZE) + PMD_SIZE);
		dcache_clean_pou((unsigned long)__va(addr), (unsigned long)__va(next));
		cond_resched();
	}

	__invalidate_icache_guest_page(__va(start), size);
}

/*
 * Map in chunks of the largest block.  A chunk is within one entry of that level.
 * So a chunk needs at most one table of each level, and one more of the last level:
 * a chunk of 2M blocks has pages at both ends.
 *
 * mmu_lock is dropped between chunks.  slots_lock keeps other changes away.  A running
 * guest may already use the chunks that are mapped.
 */
static int internal_map(struct kvm *kvm, phys_addr_t start, u64 size, unsigned int flags)
{
	struct kvm_mmu_memory_cache cache = { .gfp_zero = __GFP_ZERO };
	u64 chunk = kvm_granule_size(KVM_PGTABLE_MIN_BLOCK_LEVEL);
	phys_addr_t addr, next, end = start + size;
	struct kvm_s2_mmu *mmu = &kvm->arch.mmu;
	int ret;

	for (addr = start; addr != end; addr = next) {
		next = min(end, ALIGN_DOWN(addr, chunk) + chunk);

		ret = internal_topup(&cache, kvm_mmu_cache_min_pages(mmu) + 1);
		if (ret)
			break;

		write_lock(&kvm->mmu_lock);
		ret = kvm_pgtable_stage2_map(mmu->pgt, addr, next - addr, addr,
					     internal_prot(flags), &cache,
					     KVM_PGTABLE_WALK_SKIP_CMO);
		write_unlock(&kvm->mmu_lock);
		if (ret)
			break;

		cond_resched();
	}

	if (ret)
		internal_unmap(kvm, start, next - start);
	kvm_mmu_free_memory_cache(&cache);
	return ret;
}

/**
 * kvm_internal_vm_add_range - let the guest use physical memory
 * @kvm:	internal VM
 * @start:	physical address, which is the guest's address as well
 * @size:	in bytes
 * @flags:	KVM_INTERNAL_READ, and any of _WRITE, _EXEC; _DEVICE unless it is RAM
 *
 * The caller keeps the memory, and its linear map, until the range has been removed
 * or the VM destroyed.  Code has to be in memory before its range is added.
 *
 * Return: 0, or with nothing mapped
 * -EINVAL	zero or unaligned size, unaligned address, unknown or impossible flags
 * -EOVERFLOW	the range wraps around
 * -ERANGE	beyond the address size of the VM, see kvm_internal_vm_create()
 * -EEXIST	overlaps a range of this VM
 * -EXDEV	partly RAM
 * -EPERM	not RAM, without _DEVICE; RAM, with it
 * -EFAULT	RAM that is not in the kernel's linear map
 * -ENOMEM	no memory for page tables
 */
int kvm_internal_vm_add_range(struct kvm *kvm, phys_addr_t start, u64 size, unsigned int flags)
{
	struct internal_range new = { .start = start, .last = start + size - 1 };
	struct internal_range *range;
	int ret;

	if (!kvm_is_internal(kvm))
		return -EINVAL;

	guard(mutex)(&kvm->slots_lock);

	ret = internal_check_range(kvm, start, size, flags);
	if (ret)
		return ret;

	range = kmemdup(&new, sizeof(new), GFP_KERNEL_ACCOUNT);
	if (!range)
		return -ENOMEM;

	if (flags & KVM_INTERNAL_EXEC)
		internal_sync_code(start, size);
	ret = internal_map(kvm, start, size, flags);
	if (ret) {
		kfree(range);
		return ret;
	}

	list_add(&range->node, &kvm->arch.internal_ranges);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_internal_vm_add_range);

static void internal_remove(struct kvm *kvm, struct internal_range *range)
{
	internal_unmap(kvm, range->start, range->last - range->start + 1);
	list_del(&range->node);
	kfree(range);
}

/**
 * kvm_internal_vm_remove_range - undo kvm_internal_vm_add_range()
 * @kvm:	internal VM
 * @start:	as it was added
 * @size:	as it was added
 *
 * The guest may run meanwhile.  Its TLB entries are gone when this returns::
 *
 *	guest				remove
 *	-----				------
 *	access: TLB hit
 *					PTE = 0
 *					TLBI IS, DSB ISH: waits for the access
 *	access: fault			return
 *
 * Return: 0, or -ENOENT if there is no such range.
 */
int kvm_internal_vm_remove_range(struct kvm *kvm, phys_addr_t start, u64 size)
{
	struct internal_range *range;

	if (!kvm_is_internal(kvm))
		return -EINVAL;

	guard(mutex)(&kvm->slots_lock);

	list_for_each_entry(range, &kvm->arch.internal_ranges, node) {
		if (range->start == start && range->last - start == size - 1) {
			internal_remove(kvm, range);
			return 0;
		}
	}

	return -ENOENT;
}
EXPORT_SYMBOL_GPL(kvm_internal_vm_remove_range);

/* --- VM ----------------------------------------------------------------- */

/**
 * kvm_internal_vm_create - create a VM without memory and vCPUs
 * @name:	of its directory in debugfs, kvm/internal-N-NAME
 *
 * Addresses of the VM have 48 bits, or more if the machine's RAM needs more, up to the
 * limit of the CPU.  All 52 bits of a CPU would cost each walk another level.
 *
 * Return: the VM, or an ERR_PTR()
 * -EINVAL	the name is empty, has a slash or more than %KVM_INTERNAL_NAME_LEN characters
 * -ENODEV	KVM does not work here, or not yet
 * -EOPNOTSUPP	pKVM
 * -ENOMEM	no memory
 */
struct kvm *kvm_internal_vm_create(const char *name)
{
	static atomic_t nr = ATOMIC_INIT(0);
	u32 bits = max(48, fls64(memblock_end_of_DRAM() - 1));
	char dir_name[sizeof("internal--") + 10 + KVM_INTERNAL_NAME_LEN];
	struct kvm *kvm;

	if (!is_kvm_arm_initialised())
		return ERR_PTR(-ENODEV);
	if (is_protected_kvm_enabled())
		return ERR_PTR(-EOPNOTSUPP);
	if (!*name || strlen(name) > KVM_INTERNAL_NAME_LEN || strchr(name, '/'))
		return ERR_PTR(-EINVAL);

	snprintf(dir_name, sizeof(dir_name), "internal-%u-%s", atomic_inc_return(&nr), name);

	kvm = kvm_create_vm(min(bits, get_kvm_ipa_limit()), NULL, dir_name);
	if (!IS_ERR(kvm))
		INIT_LIST_HEAD(&kvm->arch.internal_ranges);
	return kvm;
}
EXPORT_SYMBOL_GPL(kvm_internal_vm_create);

/**
 * kvm_internal_vm_destroy - destroy a VM with its ranges and vCPUs
 * @kvm:	internal VM; no other call uses it now or later
 *
 * A reader of debugfs may hold the VM for longer, but not the ranges: their memory
 * belongs to the owner again when this returns.
 */
void kvm_internal_vm_destroy(struct kvm *kvm)
{
	struct internal_range *range, *next;

	if (!kvm_is_internal(kvm))
		return;

	scoped_guard(mutex, &kvm->slots_lock) {
		list_for_each_entry_safe(range, next, &kvm->arch.internal_ranges, node)
			internal_remove(kvm, range);
	}

	kvm_put_kvm(kvm);
}
EXPORT_SYMBOL_GPL(kvm_internal_vm_destroy);
