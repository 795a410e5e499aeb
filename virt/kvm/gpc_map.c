// SPDX-License-Identifier: GPL-2.0-only
/*
 * One contiguous kernel address for the page frames of a guest-page cache.  The
 * page frames may be of any kind.
 */
#include <linux/error-injection.h>
#include <linux/highmem.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/kvm_host.h>
#include <linux/vmalloc.h>

#include "kvm_mm.h"

/* Is the page frame RAM, whether the kernel manages it or not? */
#ifndef kvm_arch_pfn_is_ram
static bool kvm_arch_pfn_is_ram(kvm_pfn_t pfn)
{
	return false;
}
#endif

/*
 * May the kernel map the page frame write-back?  An architecture overrides this if a
 * cacheable alias of device memory does harm and memremap() does not check for it.
 */
#ifndef kvm_arch_pfn_is_cacheable
static bool kvm_arch_pfn_is_cacheable(kvm_pfn_t pfn)
{
	return true;
}
#endif

/* RAM that the kernel manages: its pages are reference-counted, most have an address. */
static void *gpc_map_managed(struct kvm_gpc_map *map, struct page **pages, bool contiguous)
{
	bool lowmem = true;
	unsigned int i;

	for (i = 0; i < map->nr_pages; i++)
		lowmem &= !PageHighMem(pages[i]);

	if (lowmem && contiguous) {
		map->type = KVM_GPC_MAP_DIRECT;
		return page_address(pages[0]);
	}

	map->type = KVM_GPC_MAP_VMAP;
	return vmap(pages, map->nr_pages, VM_MAP, PAGE_KERNEL);
}

#ifdef CONFIG_HAS_IOMEM
/* On x86 memremap() uses the memory type of existing mappings of the range. */
static void *gpc_map_range(struct kvm_gpc_map *map)
{
	phys_addr_t start = pfn_to_hpa(map->pfns[0]);
	size_t size = (size_t)map->nr_pages * PAGE_SIZE;
	unsigned int i;

	for (i = 0; i < map->nr_pages; i++) {
		if (!kvm_arch_pfn_is_cacheable(map->pfns[i]))
			return NULL;
	}

	/* memremap() would warn of a range that is RAM only in part. */
	if (region_intersects(start, size, IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) == REGION_MIXED)
		return NULL;

	map->type = KVM_GPC_MAP_MEMREMAP;
	return memremap(start, size, MEMREMAP_WB);
}
#else
static void *gpc_map_range(struct kvm_gpc_map *map)
{
	return NULL;
}
#endif

/*
 * RAM of any kind is write-back, including RAM that mem= hides from the kernel.  Hidden
 * RAM has struct pages if the kernel's RAM ends within the same memory section.
 */
static void *gpc_map_ram(struct kvm_gpc_map *map, struct page **managed)
{
	struct page *pages[KVM_GPC_MAX_PAGES];
	unsigned long pfns[KVM_GPC_MAX_PAGES];
	unsigned int i, nr_valid = 0;

	for (i = 0; i < map->nr_pages; i++) {
		if (!managed[i] && !kvm_arch_pfn_is_ram(map->pfns[i]))
			return NULL;
		if (pfn_valid(map->pfns[i]))
			pages[nr_valid++] = pfn_to_page(map->pfns[i]);
		pfns[i] = map->pfns[i];
	}

	map->type = KVM_GPC_MAP_VMAP;
	if (nr_valid == map->nr_pages)
		return vmap(pages, nr_valid, VM_MAP, PAGE_KERNEL);
	return nr_valid ? NULL : vmap_pfn(pfns, map->nr_pages, PAGE_KERNEL);
}

static noinline int gpc_map_any(struct kvm_gpc_map *map, const kvm_pfn_t *pfns,
				struct page **pages, unsigned int nr_pages)
{
	bool managed = true, contiguous = true;
	unsigned int i;

	map->nr_pages = nr_pages;
	for (i = 0; i < nr_pages; i++) {
		map->pfns[i] = pfns[i];
		managed &= !!pages[i];
		contiguous &= pfns[i] == pfns[0] + i;
	}

	map->base = NULL;
	if (managed)
		map->base = gpc_map_managed(map, pages, contiguous);
	else if (contiguous)
		map->base = gpc_map_range(map);
	if (!map->base && !managed)
		map->base = gpc_map_ram(map, pages);

	if (map->base)
		return 0;
	map->type = KVM_GPC_MAP_NONE;
	return -EFAULT;
}

/**
 * kvm_gpc_map - give page frames a kernel address
 * @map: mapping to fill in
 * @pfns: page frames
 * @pages: their struct pages where these are reference-counted, else %NULL
 * @nr_pages: how many
 *
 * Page frames that are not RAM must be contiguous: only memremap() knows their memory
 * type.  Of two page frames that are not contiguous, both or none must have a struct
 * page: no mapping of the kernel takes one of each.
 *
 * Context: may sleep.
 *
 * Return: 0, or -EFAULT when the pages cannot be mapped.
 */
noinline int kvm_gpc_map(struct kvm_gpc_map *map, const kvm_pfn_t *pfns,
			 struct page **pages, unsigned int nr_pages)
{
	/* The common case. */
	if (likely(nr_pages == 1 && pages[0] && !PageHighMem(pages[0]))) {
		map->type = KVM_GPC_MAP_DIRECT;
		map->base = page_address(pages[0]);
		return 0;
	}

	return gpc_map_any(map, pfns, pages, nr_pages);
}
ALLOW_ERROR_INJECTION(kvm_gpc_map, ERRNO);

/**
 * kvm_gpc_unmap - undo kvm_gpc_map()
 * @map: a mapping, or none
 *
 * Depends on @map only, not on the pages: nobody has a reference on them, and they may
 * have another owner by now.
 *
 * Context: may sleep.
 */
void kvm_gpc_unmap(struct kvm_gpc_map *map)
{
	switch (map->type) {
	case KVM_GPC_MAP_VMAP:
		vunmap(map->base);
		break;
#ifdef CONFIG_HAS_IOMEM
	case KVM_GPC_MAP_MEMREMAP:
		memunmap(map->base);
		break;
#endif
	}
	map->type = KVM_GPC_MAP_NONE;
	map->base = NULL;
}
