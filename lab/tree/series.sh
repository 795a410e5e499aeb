# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The series as commits, as a tree to edit in, as mails; and back into patches/.
#
# patches/BASE/ has a series for each base. An entry of it is a patch in quilt's form:
#
#	Subject: KVM: pfncache: ...
#
#	Why.
#
#	Adds: virt/kvm/pfncache.c	overlay files that land with this commit
#	---
#	diff against the step before; none where the entry only adds files
#
# Commits are made with git's plumbing in a repository that has refs/heads/base,
# without a work tree: that is quick, and a failure leaves nothing half-made.

# All commits of a series bear the date of the repository's last one, so that
# the same files give the same commits.
series_date()
{
	git -C "$TOP" log -1 --format=%cI 2>/dev/null || echo 1970-01-01T00:00:00Z
}

entries()
{
	sed 's/[[:space:]]*#.*//; /^[[:space:]]*$/d' "$1/patches/$BASE_SERIES/series"
}

# header PATCH: the text before the diff
header()
{
	sed '/^---$/,$d; /^diff --git /,$d' "$1"
}

subject()
{
	header "$1" | sed -n 's/^Subject: //p'
}

# The commit's body: the header without Subject: and Adds:
body()
{
	header "$1" | sed '/^Subject: /d; /^Adds: /d' | sed '/./,$!d' |
		sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
}

# The commit's message: the trailers that the patch has, then the sign-off
message()
{
	printf '%s\n\n%s\n' "$(subject "$1")" "$(body "$1")" | git -C "$TOP" interpret-trailers \
		--trailer "Signed-off-by: $(committer_name) <$(committer_email)>"
}

adds()
{
	header "$1" | sed -n 's/^Adds: //p'
}

overlay_files()
{
	local p

	for p in $(entries "$TOP"); do
		adds "$PATCHES/$p"
	done
}

# placed: map the paths of overlay files, on standard input, to those of the base. After
# 6.12, the folders of KVM's selftests have the names of those in arch/.
placed()
{
	local dir='^(tools/testing/selftests/kvm/((include|lib)/)?)'

	if [[ $BASE_SERIES = 6.12 ]]; then
		cat
	else
		sed -E "s#${dir}x86_64/#\1x86/#; s#${dir}aarch64/#\1arm64/#"
	fi
}

# overlay_placed: the overlay files of the series, as they are named in the tree
overlay_placed()
{
	overlay_files | placed
}

# Whoever runs `make series` signs it off.
committer_name()
{
	git -C "$TOP" config user.name || echo kvm-gpc
}

committer_email()
{
	git -C "$TOP" config user.email || echo kvm-gpc@localhost
}

# commit_tree GIT TREE MESSAGE [PARENT]: prints the commit
commit_tree()
{
	(
		GIT_AUTHOR_NAME=$(committer_name)
		GIT_AUTHOR_EMAIL=$(committer_email)
		GIT_AUTHOR_DATE=$(series_date)
		export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE
		export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
		export GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE
		git -C "$1" commit-tree "$2" ${4:+-p "$4"} -m "$3"
	)
}

file_mode()
{
	if [[ -x $1 ]]; then echo 100755; else echo 100644; fi
}

# series_commits GIT [REPO]: a commit for each entry on top of base; prints
# "PATCH COMMIT" for each. Nothing in GIT but objects changes.
series_commits()
{
	local git=$1 repo=${2:-$TOP} p f at blob added commit tree patch index err
	local -A seen=()

	commit=$(git -C "$git" rev-parse refs/heads/base)
	temp index "$BUILD/series.index"
	export GIT_INDEX_FILE=$index
	git -C "$git" read-tree "$commit"
	for p in $(entries "$repo"); do
		patch=$repo/patches/$BASE_SERIES/$p
		[[ -f $patch ]] || die "patches/$BASE_SERIES/series names $p, but there is no such file beside it"
		[[ -n $(subject "$patch") ]] || die "patches/$BASE_SERIES/$p has no 'Subject:' line"
		if grep -qE '^(diff --git|---) [^ ]' "$patch" &&
		   ! err=$(git -C "$git" apply --cached --whitespace=nowarn "$patch" 2>&1); then
			die "patches/$BASE_SERIES/$p does not apply to base ${BASE_VERSION-}:" \
				"$(sed -n 's/^error: \(patch failed: \)*//p' <<<"$err" | head -n 1)"
		fi
		added=
		for f in $(adds "$patch"); do
			[[ -z ${seen[$f]-} ]] || die "$f is added by ${seen[$f]} and again by $p"
			seen[$f]=$p
			[[ -f $repo/$f ]] || die "patches/$BASE_SERIES/$p adds $f, but the repository has no such file"
			at=$(placed <<<"$f")
			blob=$(git -C "$git" hash-object -w --path="$at" "$repo/$f")
			added+="$(file_mode "$repo/$f") $blob"$'\t'"$at"$'\n'
		done
		# Each call writes the whole index.
		[[ -z $added ]] || git -C "$git" update-index --index-info <<<"${added%$'\n'}"
		tree=$(git -C "$git" write-tree)
		commit=$(commit_tree "$git" "$tree" "$(message "$patch")" "$commit")
		echo "$p $commit"
	done
	unset GIT_INDEX_FILE
	rm -f "$index"
}

# Overlay files that no series names: they are in no tree, nor in the mails.
overlay_orphans()
{
	(cd "$TOP" && git ls-files -co --exclude-standard arch include virt samples tools Documentation |
		while read -r f; do [[ ! -e $f ]] || echo "$f"; done) |
		grep -vxF -e "$(sed -n 's/^Adds: //p' "$TOP"/patches/*/*.patch)" || :
}

orphans_text()
{
	echo "$(overlay_orphans | tr '\n' ' ')in no 'Adds:' line of patches/"
}

# --- make tree ------------------------------------------------------------

TREE=$BUILD/tree

# Digest of the inputs of the tree's commits, without overlay files, which are links.
tree_key()
{
	{ echo "$BASE_VERSION"; cat "$PATCHES/series"
		# shellcheck disable=SC2046
		(cd "$PATCHES" && cat $(entries "$TOP")); } | digest
}

# Edits to base files in the tree that are not in patches/ yet, new files included.
tree_edits()
{
	git -C "$TREE" diff --name-only --no-renames HEAD
	git -C "$TREE" ls-files --others --exclude-standard
}

tree_must_be_clean()
{
	local edits

	[[ -e $TREE/.git/kvm-gpc ]] || return 0
	edits=$(tree_edits)
	[[ -z $edits ]] || die "build/tree has edits that are not in patches/:" \
		"${edits//$'\n'/ }; 'make refresh' puts them there, 'git -C build/tree checkout .' drops them"
}

# tree: build/tree is the series on the base, the overlay files links to ours
tree()
{
	base
	[[ -z $(overlay_orphans) ]] || note "left out of the tree: $(orphans_text)"
	if [[ -e $TREE/.git/kvm-gpc && $(<"$TREE/.git/kvm-gpc") = "$(tree_key)" ]]; then
		return 0
	fi
	if [[ -e $TREE/.git/kvm-gpc ]]; then
		tree_must_be_clean
	elif [[ -e $TREE ]]; then
		rm -rf "$TREE"
	fi
	step tree "apply the series to $BASE_VERSION" tree_make
}

tree_make()
{
	local t=$TREE f top commits

	if [[ ! -e $TREE/.git ]]; then
		need_space "$BUILD" 4
		t=$TREE.tmp
		rm -rf "$t"
		git clone -q --no-checkout --branch base "$BASE_GIT" "$t"
	fi
	commits=$(series_commits "$t")
	top=$(awk 'END { print $2 }' <<<"$commits")
	# Replace the old links by files for the checkout, then make new links.
	rm -f "$t/.git/kvm-gpc"
	tree_links "$t" drop
	git -C "$t" -c advice.detachedHead=false checkout -q -f -B series "$top"
	tree_links "$t" make
	[[ $t = "$TREE" ]] || mv "$t" "$TREE"
	tree_key >"$TREE/.git/kvm-gpc"
}

tree_links()
{
	local t=$1 f at

	for f in $(git -C "$t" ls-files -v 2>/dev/null | sed -n 's/^S //p'); do
		rm -f "${t:?}/$f"
		git -C "$t" update-index --no-skip-worktree "$f"
	done
	[[ $2 = make ]] || return 0
	for f in $(overlay_files); do
		# Relative, so that the checkout can be moved.
		at=$(placed <<<"$f")
		ln -sfnr "$TOP/$f" "$t/$at"
		git -C "$t" update-index --skip-worktree "$at"
	done
}

verb_tree()
{
	need build
	tree
	note "${TREE#"$TOP/"}: $(git -C "$TREE" rev-list --count base..series) commits on Linux $BASE_VERSION;" \
		"edit there, then 'make refresh'"
}

# --- make refresh ---------------------------------------------------------

# An edit goes into the last patch that touches the file, or into PATCH. PATCH must not
# come before another patch of the same file, whose context would then be wrong.
verb_refresh()
{
	local f p commits target
	local -A into=()

	[[ -e $TREE/.git/kvm-gpc ]] || die "there is no build/tree; 'make tree' makes it"
	base
	[[ -n $(tree_edits) ]] || { note "nothing to refresh: build/tree has no edits"; return 0; }
	commits=$(series_commits "$TREE")
	same_diffs "$(awk 'END { print $2 }' <<<"$commits")" ||
		die "patches/ changed since build/tree was made, and the tree has edits:" \
		"put one of the two aside first ('git -C build/tree diff' writes the edits down)"
	for f in $(tree_edits); do
		target=$(last_patch_of "$f")
		if [[ -n ${PATCH-} ]]; then
			entries "$TOP" | grep -qxF "$PATCH" ||
				die "PATCH=$PATCH is not in patches/$BASE_SERIES/series; add a line and a file with a Subject: first"
			if [[ -n $target && $target != "$PATCH" ]] &&
			   [[ $(entries "$TOP" | grep -nxF "$PATCH" | cut -d: -f1) -lt $(entries "$TOP" | grep -nxF "$target" | cut -d: -f1) ]]; then
				die "$f is changed again by $target, after $PATCH; refresh into that, or edit the patches by hand (quilt can)"
			fi
			target=$PATCH
		fi
		[[ -n $target ]] || die "no patch touches $f yet; say which takes it: make refresh PATCH=..."
		into[$target]+=" $f"
	done
	for p in "${!into[@]}"; do
		# shellcheck disable=SC2086
		refresh_patch "$p" "$commits" ${into[$p]}
		note "patches/$BASE_SERIES/$p:${into[$p]}"
	done
	rm "$TREE/.git/kvm-gpc"
	git -C "$TREE" checkout -q -f series
	tree_make
}

# Does the tree match patches/, apart from edits and overlay files? Headers of patches
# may differ, and an entry may be new.
same_diffs()
{
	local f

	for f in $(git -C "$TREE" diff --name-only series "$1"); do
		grep -qxF "$f" <<<"$(overlay_placed)" || return 1
	done
}

last_patch_of()
{
	local p last=

	for p in $(entries "$TOP"); do
		if grep -qxF "+++ b/$1" "$PATCHES/$p" || grep -qxF -- "--- a/$1" "$PATCHES/$p"; then
			last=$p
		fi
	done
	echo "$last"
}

# refresh_patch PATCH COMMITS FILE...: its diff with the tree's version of FILEs
refresh_patch()
{
	local p=$1 commit index f tree new=$PATCHES/$1.tmp
	local -a except=()
	commit=$(awk -v p="$p" '$1 == p { print $2 }' <<<"$2")
	shift 2

	temp index "$BUILD/refresh.index"
	GIT_INDEX_FILE=$index git -C "$TREE" read-tree "$commit"
	for f; do
		if [[ -e $TREE/$f ]]; then
			GIT_INDEX_FILE=$index git -C "$TREE" update-index --add --cacheinfo \
				"$(file_mode "$TREE/$f"),$(git -C "$TREE" hash-object -w "$TREE/$f"),$f"
		else
			GIT_INDEX_FILE=$index git -C "$TREE" update-index --force-remove "$f"
		fi
	done
	tree=$(GIT_INDEX_FILE=$index git -C "$TREE" write-tree)
	# Not those of other patches: one may have an earlier version of an overlay file.
	for f in $(adds "$PATCHES/$p" | placed); do
		except+=(":(exclude)$f")
	done
	{
		sed '/^diff --git /,$d' "$PATCHES/$p"
		# Plumbing ignores the user's settings of git diff.
		git -C "$TREE" diff-tree -p --no-renames --src-prefix=a/ --dst-prefix=b/ \
			"$commit^" "$tree" -- . "${except[@]}" | sed '/^index /d'
	} >"$new"
	mv "$new" "$PATCHES/$p"
	rm -f "$index"
}

# --- make series ----------------------------------------------------------

verb_series()
{
	need build
	base
	[[ -z $(overlay_orphans) ]] || die "not in the series: $(orphans_text)"
	step series "write the mails of the series" series_mails
	note "${BUILD#"$TOP/"}/series: $(find "$BUILD/series" -name '*.patch' | wc -l) mails;" \
		"git am --empty=drop ${BUILD#"$TOP/"}/series/*.patch, on Linux $BASE_VERSION"
}

series_mails()
{
	local t=$BUILD/series.tmp git=$BUILD/series.git commits top

	rm -rf "$t" "$git"
	mkdir "$t"
	git clone -q --bare "$BASE_GIT" "$git"
	commits=$(series_commits "$git")
	top=$(awk 'END { print $2 }' <<<"$commits")
	git -C "$git" update-ref refs/heads/series "$top"
	git -C "$git" config user.name "$(committer_name)"
	git -C "$git" config user.email "$(committer_email)"
	git -C "$git" -c format.signature="$BASE_VERSION" format-patch -q --no-renames \
		--src-prefix=a/ --dst-prefix=b/ -U3 --no-color --no-ext-diff --no-attach --suffix=.patch \
		--numbered --no-thread --no-signoff --no-cc --no-to --no-notes \
		--no-base --cover-letter --cover-from-description=none \
		-o "$t" base..series
	recipients "$git" "$t" >"$git/recipients"
	cover_letter "$t"/0000-cover-letter.patch "$git/recipients"
	rm -rf "$git" "$BUILD/series"
	mv "$t" "$BUILD/series"
}

# base_named: the base, in terms of a reader who does not have our repository
base_named()
{
	local version=v${BASE_VERSION%%-*}

	case $BASE_KIND in
	kdir) git -C "$KDIR" rev-parse HEAD 2>/dev/null || echo "Linux $version" ;;
	tarball) echo "$version of linux-stable" ;;
	*) echo "$version of linux-stable, as it is in Debian's linux-source-$BASE_SERIES $BASE_VERSION" ;;
	esac
}

# recipients GIT DIR: To: and Cc: for the mails in DIR, by the kernel's get_maintainer.pl
# and the series' MAINTAINERS
recipients()
{
	git -C "$1" show base:scripts/get_maintainer.pl >"$1/get_maintainer.pl" 2>/dev/null || return 0
	git -C "$1" show series:MAINTAINERS >"$1/MAINTAINERS"
	find "$2" -name '*.patch' ! -name '0000-*' | sort |
		xargs perl "$1/get_maintainer.pl" --no-tree --mpath "$1/MAINTAINERS" --nogit \
			--nogit-fallback --nofixes --rolestats |
		awk '
			{ field = /\((maintainer|supporter):/ ? "To" : "Cc"
			  sub(/ \((maintainer|supporter|reviewer|[a-z ]*list)[:)].*/, "")
			  all[field] = all[field] (all[field] == "" ? field ": " : ",\n    ") $0 }
			END { if ("To" in all) print all["To"]; if ("Cc" in all) print all["Cc"] }'
}

# cover_letter MAIL RECIPIENTS: from patches/cover, whose first line is the subject, the
# rest the text
cover_letter()
{
	awk -v cover="$TOP/patches/cover" -v recipients="$2" -v base="$(base_named)" '
		function put(mark, text,   i) {
			i = index($0, mark)
			if (i) $0 = substr($0, 1, i - 1) text substr($0, i + length(mark))
		}
		BEGIN {
			getline subject < cover
			getline line < cover
			while ((getline line < cover) > 0) text = text (text == "" ? "" : "\n") line
			text = text "\n\nBase: " base
		}
		/^Subject: / { while ((getline line < recipients) > 0) print line }
		{ put("*** SUBJECT HERE ***", subject); put("*** BLURB HERE ***", text); print }' "$1" >"$1.tmp"
	mv "$1.tmp" "$1"
}
