/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A filesystem that is one file, which is also its root.  A child of the test serves it
 * (Documentation/filesystems/fuse.rst), so any kernel with FUSE will do.  A thread would
 * not do: its page faults would wait for those that it serves.
 */
#ifndef SELFTEST_KVM_GPC_FUSE_H
#define SELFTEST_KVM_GPC_FUSE_H

#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <linux/fuse.h>

#include "gpc.h"

#define GPC_FUSE_MAX_WRITE	(32 * PAGE_SIZE)

static struct gpc_fuse {
	int fd;
	uint8_t *data;
	size_t size;
} gpc_fuse;

static inline void gpc_fuse_reply(uint64_t unique, int error, const void *data, size_t size)
{
	struct fuse_out_header header = {
		.len = sizeof(header) + size,
		.error = error,
		.unique = unique,
	};
	struct iovec iov[] = {
		{ &header, sizeof(header) },
		{ (void *)data, size },
	};

	/* The request may have been interrupted. */
	TEST_ASSERT(writev(gpc_fuse.fd, iov, ARRAY_SIZE(iov)) == header.len || errno == ENOENT,
		    __KVM_SYSCALL_ERROR("writev()", -1));
}

static inline void gpc_fuse_serve_one(const struct fuse_in_header *in)
{
	const struct fuse_read_in *read_in = (void *)(in + 1);
	const struct fuse_write_in *write_in = (void *)(in + 1);
	const struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_write = GPC_FUSE_MAX_WRITE,
	};
	const struct fuse_attr_out attr = {
		.attr = {
			.ino = FUSE_ROOT_ID,
			.size = gpc_fuse.size,
			.mode = S_IFREG | 0600,
			.nlink = 1,
		},
	};
	const struct fuse_open_out open = { .open_flags = FOPEN_KEEP_CACHE };
	struct fuse_write_out write = { };
	size_t size;

	switch (in->opcode) {
	case FUSE_INIT:
		gpc_fuse_reply(in->unique, 0, &init, sizeof(init));
		break;
	case FUSE_GETATTR:
		gpc_fuse_reply(in->unique, 0, &attr, sizeof(attr));
		break;
	case FUSE_OPEN:
		gpc_fuse_reply(in->unique, 0, &open, sizeof(open));
		break;
	case FUSE_READ:
		size = min_t(uint64_t, read_in->size, gpc_fuse.size - read_in->offset);
		gpc_fuse_reply(in->unique, 0, gpc_fuse.data + read_in->offset, size);
		break;
	case FUSE_WRITE:
		write.size = write_in->size;
		memcpy(gpc_fuse.data + write_in->offset, write_in + 1, write.size);
		gpc_fuse_reply(in->unique, 0, &write, sizeof(write));
		break;
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_RELEASE:
		gpc_fuse_reply(in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		gpc_fuse_reply(in->unique, -EOPNOTSUPP, NULL, 0);
	}
}

static inline void gpc_fuse_serve(void)
{
	static uint8_t request[GPC_FUSE_MAX_WRITE + PAGE_SIZE] __aligned(8);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	gpc_fuse.data = calloc(1, gpc_fuse.size);
	/* Until it is unmounted. */
	while (read(gpc_fuse.fd, request, sizeof(request)) > 0)
		gpc_fuse_serve_one((void *)request);
	_exit(0);
}

/*
 * Mount it over @path, an empty file.  False if there is no FUSE here.  To be called
 * before there is a VM, which the child would keep.
 */
static inline bool gpc_fuse_mount(const char *path, size_t size)
{
	char options[64];
	pid_t pid;

	gpc_fuse.size = size;
	gpc_fuse.fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof(options), "fd=%d,rootmode=%o,user_id=0,group_id=0",
		 gpc_fuse.fd, S_IFREG | 0600);
	if (gpc_fuse.fd < 0 || mount("gpc", path, "fuse", 0, options))
		return false;
	pid = fork();
	TEST_ASSERT(pid >= 0, __KVM_SYSCALL_ERROR("fork()", pid));
	if (!pid)
		gpc_fuse_serve();
	close(gpc_fuse.fd);
	return true;
}

#endif /* SELFTEST_KVM_GPC_FUSE_H */
