# SPDX-License-Identifier: GPL-2.0-only
# The verbs. Each is one call into lab/; `make help` lists them.

.DEFAULT_GOAL := help
ALL := run test test-debug test-kcsan test-rt test-upstream test-tools test-load test-debian base-test bench demo report load unload dkms modules tree refresh series check docs shell clean help

.PHONY: $(ALL)
$(ALL):
	@lab/lab $@
