// SPDX-License-Identifier: GPL-2.0-only
/*
 * One contiguous kernel address for the page frames of a guest-page cache, of
 * whatever kind they are.
 */
#include <linux/error-injection.h>
#include <linux/highmem.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/kvm_host.h>
#include <linux/vmalloc.h>

#include "kvm_mm.h"

/* Does the machine have RAM there, whether the kernel manages it or not? */
#ifndef kvm_arch_pfn_is_ram
static bool kvm_arch_pfn_is_ram(kvm_pfn_t pfn)
{
	return false;
}
#endif

/*
 * May the kernel map it write-back?  Where a cacheable alias of device memory would do
 * harm, and memremap() does not look, the architecture says.
 */
#ifndef kvm_arch_pfn_is_cacheable
static bool kvm_arch_pfn_is_cacheable(kvm_pfn_t pfn)
{
	return true;
}
#endif

/* RAM that the kernel manages: its pages have references, and most an address. */
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
/* On x86 memremap() finds the memory type that others have mapped the range with. */
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
 * RAM of any kind is write-back, also what the kernel was told to leave alone (mem=).
 * That may have struct pages, where the kernel's own ends within a section of them.
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
 * What is no RAM must be contiguous: its memory type is known to memremap() only.  And
 * of two pages that are not contiguous either both or none must have a struct page:
 * there is no mapping in the kernel that takes one of each.
 *
 * Context: may sleep.
 *
 * Return: 0, or -EFAULT when the pages cannot be mapped.
 */
noinline int kvm_gpc_map(struct kvm_gpc_map *map, const kvm_pfn_t *pfns,
			 struct page **pages, unsigned int nr_pages)
{
	/* As good as always. */
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
 * Goes by what was done, not by what the pages are: nobody has a reference on them,
 * and by now they may be others'.
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
