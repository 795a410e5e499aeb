/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __KVM_GPC_LOCK_H
#define __KVM_GPC_LOCK_H

#include <linux/atomic.h>
#include <linux/kvm_gpc.h>
#include <linux/limits.h>
#include <linux/lockdep.h>
#include <linux/preempt.h>

/*
 * A reader-writer spinlock whose readers only try.  Neither the start nor the end of
 * a read section waits for anybody or wakes anybody: both are legal in hard IRQ and
 * under the runqueue lock, on PREEMPT_RT too, where an rwlock_t sleeps.
 *
 * The lock has no owner: it may be taken for write by one task and released by
 * another.  The caller serializes writers.
 *
 * A reader that sees no writer adds itself to the count, and takes itself off again if
 * the sum shows a writer: two atomic operations at most, whatever other CPUs do.  A
 * compare-exchange loop would try again for as long as other readers come and go.  A
 * writer may see a reader that is about to give up, once for each CPU, and waits for a
 * few instructions more.
 *
 * Ordering:
 * - gpc_write_unlock() is a release, gpc_read_trylock() an acquire: a reader sees
 *   everything that was written under the lock.
 * - gpc_read_unlock() is a release, the wait in gpc_write_lock() an acquire: what a
 *   reader did happened before anything that the writer does.
 * - gpc_write_lock() adds to the count before it reads the count.  All of this is one
 *   variable, so a reader is either seen by the writer or sees the writer.
 */
#define GPC_WRITER	INT_MIN

/* The lock starts out held for write. */
static inline void gpc_lock_init(struct gpc_lock *lock)
{
	static struct lock_class_key key;

	atomic_set(&lock->count, GPC_WRITER);
	lockdep_init_map_wait(&lock->dep_map, "&gpc->lock", &key, 0, LD_WAIT_SPIN);
}

static inline bool gpc_read_trylock(struct gpc_lock *lock)
{
	preempt_disable();
	if (likely(atomic_read(&lock->count) >= 0)) {
		if (likely(atomic_inc_return_acquire(&lock->count) > 0)) {
			rwlock_acquire_read(&lock->dep_map, 0, 1, _THIS_IP_);
			return true;
		}
		atomic_dec(&lock->count);
	}
	preempt_enable();
	return false;
}

static inline void gpc_read_unlock(struct gpc_lock *lock)
{
	rwlock_release(&lock->dep_map, _THIS_IP_);
	(void)atomic_dec_return_release(&lock->count);
	preempt_enable();
}

/* Take and release the lock for lockdep at once: the lock has no owner in between. */
static inline void gpc_write_lock(struct gpc_lock *lock)
{
	rwlock_acquire(&lock->dep_map, 0, 0, _THIS_IP_);
	atomic_add(GPC_WRITER, &lock->count);
	atomic_cond_read_acquire(&lock->count, VAL == GPC_WRITER);
	rwlock_release(&lock->dep_map, _THIS_IP_);
}

static inline void gpc_write_unlock(struct gpc_lock *lock)
{
	(void)atomic_sub_return_release(GPC_WRITER, &lock->count);
}

#endif /* __KVM_GPC_LOCK_H */
