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

/*
 * Is the page in the direct map?  Not if it has no struct page, nor, perhaps, if
 * it is reserved: it may then lie in a hole of the memory map.
 */
static bool gpc_pfn_is_lowmem(kvm_pfn_t pfn)
{
	struct page *page;

	if (!pfn_valid(pfn))
		return false;

	page = pfn_to_page(pfn);
	return !PageHighMem(page) && (!PageReserved(page) || is_zone_device_page(page));
}

static void *gpc_map_direct(struct kvm_gpc_map *map)
{
	unsigned int i;

	for (i = 0; i < map->nr_pages; i++) {
		if (!gpc_pfn_is_lowmem(map->pfns[i]) || map->pfns[i] != map->pfns[0] + i)
			return NULL;
	}
	return page_address(pfn_to_page(map->pfns[0]));
}

static void *gpc_map_pages(struct kvm_gpc_map *map)
{
	struct page *pages[KVM_GPC_MAX_PAGES];
	unsigned int i;

	for (i = 0; i < map->nr_pages; i++) {
		if (!pfn_valid(map->pfns[i]))
			return NULL;
		pages[i] = pfn_to_page(map->pfns[i]);
		/* A reserved page alone is better off with memremap(). */
		if (map->nr_pages == 1 && !PageHighMem(pages[i]))
			return NULL;
	}
	return vmap(pages, map->nr_pages, VM_MAP, PAGE_KERNEL);
}

#ifdef CONFIG_HAS_IOMEM
static void *gpc_map_phys(struct kvm_gpc_map *map)
{
	phys_addr_t start = pfn_to_hpa(map->pfns[0]);
	size_t size = (size_t)map->nr_pages * PAGE_SIZE;

	if (map->nr_pages > 1 && map->pfns[1] != map->pfns[0] + 1)
		return NULL;

	/* memremap() would warn of a range that is RAM only in part. */
	if (region_intersects(start, size, IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) == REGION_MIXED)
		return NULL;
	return memremap(start, size, MEMREMAP_WB);
}
#else
static void *gpc_map_phys(struct kvm_gpc_map *map)
{
	return NULL;
}
#endif

/* Two pages far from each other that have no struct page. */
static void *gpc_map_pfns(struct kvm_gpc_map *map)
{
	unsigned long pfns[KVM_GPC_MAX_PAGES];
	unsigned int i;

	for (i = 0; i < map->nr_pages; i++) {
		if (pfn_valid(map->pfns[i]))
			return NULL;
		pfns[i] = map->pfns[i];
	}
	return vmap_pfn(pfns, map->nr_pages, PAGE_KERNEL);
}

/**
 * kvm_gpc_map - give page frames a kernel address
 * @map: @map->pfns and @map->nr_pages; the rest is set
 *
 * Pages of which one has a struct page and the other has not cannot be had at one
 * address: there is no mapping in the kernel that takes both.
 *
 * Context: may sleep.
 *
 * Return: 0, or -EFAULT when the pages cannot be mapped.
 */
noinline int kvm_gpc_map(struct kvm_gpc_map *map)
{
	map->type = KVM_GPC_MAP_DIRECT;
	map->base = gpc_map_direct(map);
	if (map->base)
		return 0;

	map->type = KVM_GPC_MAP_VMAP;
	map->base = gpc_map_pages(map);
	if (map->base)
		return 0;

	map->type = KVM_GPC_MAP_MEMREMAP;
	map->base = gpc_map_phys(map);
	if (map->base)
		return 0;

	map->type = KVM_GPC_MAP_VMAP;
	map->base = gpc_map_pfns(map);
	if (map->base)
		return 0;

	map->type = KVM_GPC_MAP_NONE;
	return -EFAULT;
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
