# shellcheck shell=bash
verb_check() { die "not yet"; }
