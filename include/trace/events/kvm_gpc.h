/* SPDX-License-Identifier: GPL-2.0-only */
/* Tracepoints of guest-page caches, see virt/kvm/pfncache.c. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm

#if !defined(_TRACE_KVM_GPC_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KVM_GPC_H

#include <linux/kvm_types.h>
#include <linux/tracepoint.h>

/**
 * kvm_gpc_activate - a cache has been bound to an address
 * @gpc: cache
 * @gpa: guest physical address, all ones when bound to @uhva
 * @uhva: user virtual address, beyond user space when the gpa has none
 * @len: bytes from there
 */
TRACE_EVENT(kvm_gpc_activate,
	    TP_PROTO(const void *gpc, gpa_t gpa, unsigned long uhva,
		     unsigned long len),
	    TP_ARGS(gpc, gpa, uhva, len),

	    TP_STRUCT__entry(__field(const void *, gpc)
			     __field(u64, gpa)
			     __field(unsigned long, uhva)
			     __field(unsigned long, len)),

	    TP_fast_assign(__entry->gpc = gpc;
			   __entry->gpa = gpa;
			   __entry->uhva = uhva;
			   __entry->len = len;),

	    TP_printk("gpc %p gpa 0x%llx uhva 0x%lx len %lu",
		      __entry->gpc, __entry->gpa, __entry->uhva, __entry->len)
);

/**
 * kvm_gpc_refresh - the pages of a cache have been looked up
 * @gpc: cache
 * @gpa: guest physical address, all ones when bound to @uhva
 * @uhva: user virtual address, beyond user space when the gpa has none
 * @retries: lookups that an invalidation of the same pages outdated
 * @waited: time asleep until invalidations of these pages had ended, in ns
 * @ret: 0 or a negative errno
 */
TRACE_EVENT(kvm_gpc_refresh,
	    TP_PROTO(const void *gpc, gpa_t gpa, unsigned long uhva,
		     unsigned int retries, u64 waited, int ret),
	    TP_ARGS(gpc, gpa, uhva, retries, waited, ret),

	    TP_STRUCT__entry(__field(const void *, gpc)
			     __field(u64, gpa)
			     __field(unsigned long, uhva)
			     __field(unsigned int, retries)
			     __field(u64, waited)
			     __field(int, ret)),

	    TP_fast_assign(__entry->gpc = gpc;
			   __entry->gpa = gpa;
			   __entry->uhva = uhva;
			   __entry->retries = retries;
			   __entry->waited = waited;
			   __entry->ret = ret;),

	    TP_printk("gpc %p gpa 0x%llx uhva 0x%lx retries %u waited %llu ret %d",
		      __entry->gpc, __entry->gpa, __entry->uhva, __entry->retries,
		      __entry->waited, __entry->ret)
);

/**
 * kvm_gpc_invalidate - user memory of a VM with active caches is invalidated
 * @start: first user virtual address
 * @last: last user virtual address
 * @hits: pages of caches in the range
 */
TRACE_EVENT(kvm_gpc_invalidate,
	    TP_PROTO(unsigned long start, unsigned long last, unsigned int hits),
	    TP_ARGS(start, last, hits),

	    TP_STRUCT__entry(__field(unsigned long, start)
			     __field(unsigned long, last)
			     __field(unsigned int, hits)),

	    TP_fast_assign(__entry->start = start;
			   __entry->last = last;
			   __entry->hits = hits;),

	    TP_printk("uhva 0x%lx..0x%lx hits %u",
		      __entry->start, __entry->last, __entry->hits)
);

#endif /* _TRACE_KVM_GPC_H */

#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE kvm_gpc
#include <trace/define_trace.h>
