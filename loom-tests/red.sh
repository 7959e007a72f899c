#!/usr/bin/env bash
# Shows that the models fail when they should: weakens one ordering at a time, in a copy of the tree, and
# runs the models on the copy. Fails if a row of the table in README.md is no longer true.
#
#   loom-tests/red.sh [PATTERN]     only rows whose text matches PATTERN; about three minutes in all
#
# `target/loom-red` holds the build, or $CARGO_TARGET_DIR/loom-red.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
pattern=${1:-}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$here/target}/loom-red" RUSTFLAGS="--cfg loom" RUST_BACKTRACE=0

# A workspace of the crates that the models need, with a profile that builds fast.
cp -r wire frame crypto io-backends engine testkit loom-tests Cargo.lock "$copy"
sed -e '/^members = \[/,/^\]/ { /"wire"\|"frame"\|"crypto"\|"io-backends"\|"engine"\|"testkit"\|"loom-tests"\|members\|^\]/!d }' \
    -e '/^default-members/d'     -e '/^\[profile/,$d' Cargo.toml > "$copy/Cargo.toml"
printf '[profile.release]\ndebug = 0\nincremental = true\n' >> "$copy/Cargo.toml"
mkdir "$copy/whole"
cp -r "$copy/frame" "$copy/io-backends" "$copy/whole"
cd "$copy"

rows=0 wrong=0

# Runs the models whose names contain $1. Returns 0 if they pass and 1 if one fails; a failed build or a
# run that does not end is an error of its own.
models() {
    local built code=0
    built=$(cargo test -q -p strowger-loom-tests --release --no-run 2>&1) || { echo "$built"; exit 2; }
    timeout 300 cargo test -q -p strowger-loom-tests --release --lib "$1" > run.log 2>&1 || code=$?
    if [[ $code == 124 ]]; then
        echo "$1 ran for five minutes"
        exit 2
    fi
    return "$code"
}

# The crate that the files of the rows below are in.
crate_folder=frame

# row EXPECTED FILE "WHAT" SED-SCRIPT MODEL
row() {
    local expected=$1 file=$2 what=$3 script=$4 model=$5
    [[ "$file $what $model" == *"$pattern"* ]] || return 0
    rows=$((rows + 1))
    cp "whole/$crate_folder/src/$file" "$crate_folder/src/$file"
    sed -i "$script" "$crate_folder/src/$file"
    if cmp -s "whole/$crate_folder/src/$file" "$crate_folder/src/$file"; then
        echo "STALE  $file: $what: nothing was changed; mend the row"
        wrong=$((wrong + 1))
        return 0
    fi
    local seen=green
    models "$model" || seen=red
    cp "whole/$crate_folder/src/$file" "$crate_folder/src/$file"
    touch "$crate_folder/src/$file"
    if [[ $seen == "$expected" ]]; then
        echo "ok     $file: $what: $seen ($model)"
    else
        echo "WRONG  $file: $what: $seen, expected $expected ($model)"
        wrong=$((wrong + 1))
    fi
}

models '' || { cat run.log; echo "the models are red as they stand"; exit 1; }
echo "ok     as it stands: green"

ring=ring::
pool=pool::
sleep=sleep::
in_fn() { echo "/fn $1/,/^    }/ $2"; }

row red ring.rs "room: Acquire to Relaxed" "$(in_fn room 's/Ordering::Acquire/Ordering::Relaxed/')" ${ring}a_ring_of_one
row red ring.rs "publish: Release to Relaxed" "$(in_fn publish 's/Ordering::Release/Ordering::Relaxed/')" ${ring}items_arrive
row red ring.rs "waiting: Acquire to Relaxed" "$(in_fn waiting 's/Ordering::Acquire/Ordering::Relaxed/')" ${ring}items_arrive
row red ring.rs "release: Release to Relaxed" "$(in_fn release 's/Ordering::Release/Ordering::Relaxed/')" ${ring}a_ring_of_one
row green ring.rs "Shared::clear: Acquire to Relaxed, twice" "$(in_fn 'clear(' 's/Ordering::Acquire/Ordering::Relaxed/')" $ring

row red pool.rs "reclaim: swap Acquire to Relaxed" "$(in_fn reclaim 's/EMPTY, Ordering::Acquire/EMPTY, Ordering::Relaxed/')" ${pool}a_chunk_returns
row red pool.rs "give_back: compare-exchange Release to Relaxed" '/^fn give_back/,/^}/ s/Ordering::Release,/Ordering::Relaxed,/' ${pool}a_chunk_returns
row red pool.rs "give_back: fetch_sub AcqRel to Release" '/^fn give_back/,/^}/ s/fetch_sub(1, Ordering::AcqRel)/fetch_sub(1, Ordering::Release)/' ${pool}a_pool_that
row red pool.rs "give_back: fetch_sub AcqRel to Acquire" '/^fn give_back/,/^}/ s/fetch_sub(1, Ordering::AcqRel)/fetch_sub(1, Ordering::Acquire)/' ${pool}a_pool_that
row red pool.rs "Pool::drop: swap Acquire to Relaxed" '/impl Drop for Pool/,/^}/ s/CLOSED, Ordering::Acquire/CLOSED, Ordering::Relaxed/' ${pool}a_pool_that
row red pool.rs "Pool::drop: fetch_add AcqRel to Release" '/impl Drop for Pool/,/^}/ s/outstanding, Ordering::AcqRel/outstanding, Ordering::Release/' ${pool}a_pool_that
row red pool.rs "Pool::drop: fetch_add AcqRel to Acquire" '/impl Drop for Pool/,/^}/ s/outstanding, Ordering::AcqRel/outstanding, Ordering::Acquire/' ${pool}a_pool_that
row red pool.rs "ChunkRef::release: load Acquire to Relaxed" "$(in_fn release 's/Ordering::Acquire) == n/Ordering::Relaxed) == n/')" ${pool}a_train
row red pool.rs "ChunkRef::release: fetch_sub Release to Relaxed" "$(in_fn release 's/Ordering::Release) == n/Ordering::Relaxed) == n/')" ${pool}a_train
row red pool.rs "ChunkRef::release: fence Acquire removed" "$(in_fn release 's/fence(Ordering::Acquire);/let _ = fence;/')" ${pool}a_train

row red sleep.rs "fall_asleep: fence removed" "$(in_fn fall_asleep 's/fence(Ordering::SeqCst);/let _ = fence;/')" ${sleep}a_sleeper
row red sleep.rs "must_wake: fence removed" "$(in_fn must_wake 's/fence(Ordering::SeqCst);/let _ = fence;/')" ${sleep}a_sleeper
row red sleep.rs "fall_asleep: fence SeqCst to AcqRel" "$(in_fn fall_asleep 's/fence(Ordering::SeqCst)/fence(Ordering::AcqRel)/')" ${sleep}a_doorbell
row red sleep.rs "must_wake: fence SeqCst to AcqRel" "$(in_fn must_wake 's/fence(Ordering::SeqCst)/fence(Ordering::AcqRel)/')" ${sleep}a_doorbell

# Not orderings, but the steps that make each item appear exactly once.
row red pool.rs "Pool::drop: chunks found on the stack not counted" '/impl Drop for Pool/,/^}/ s/returned += 1;/returned += 0;/' ${pool}a_pool_that
row red pool.rs "Pool::drop: the sum not compared" '/impl Drop for Pool/,/^}/ s/before.wrapping_add(outstanding) == 0/before == 0/' ${pool}a_pool_that
row red pool.rs "give_back: the last one does not free" '/^fn give_back/,/^}/ s/fetch_sub(1, Ordering::AcqRel) == 1/fetch_sub(1, Ordering::AcqRel) == 9/' ${pool}a_pool_that
row red sleep.rs "must_wake: no swap" "$(in_fn must_wake 's/ \&\& self.0.swap(false, Ordering::Relaxed)//')" ${sleep}of_two
# The false alarm that README.md describes; it concerns read-modify-write operations.
export LOOM_SLEEPS=2
row red sleep.rs "nothing changed, two sleeps" '$a // two sleeps' ${sleep}a_doorbell
row green sleep.rs "its stores as swaps, two sleeps" 's/self.0.store(\(true\|false\), Ordering::Relaxed)/self.0.swap(\1, Ordering::Relaxed)/' ${sleep}a_doorbell
unset LOOM_SLEEPS

row red ring.rs "push: room not asked" "$(in_fn 'push(' 's/self.room(1) == 0/false/')" ${ring}a_ring_of_one

ready=socket::a_driver
row red ready.rs "set: Release to Relaxed" "$(in_fn set 's/Ordering::Release/Ordering::Relaxed/')" $ready
row red ready.rs "take: swap Acquire to Relaxed" "$(in_fn take 's/swap(0, Ordering::Acquire)/swap(0, Ordering::Relaxed)/')" $ready
row red ready.rs "take: no swap" "$(in_fn take 's/word.swap(0, Ordering::Acquire)/{ let bits = word.load(Ordering::Acquire); word.store(0, Ordering::Relaxed); bits }/')" socket::no_ready
row red ready.rs "any: not looked" "$(in_fn any 's/word.load(Ordering::Relaxed) != 0/word.load(Ordering::Relaxed) == 99/')" $ready
task=socket::a_task
row red waker.rs "register: compare-exchange Acquire to Relaxed" "$(in_fn register 's/REGISTERING, Ordering::Acquire/REGISTERING, Ordering::Relaxed/')" $task
row red waker.rs "register: swap AcqRel to Acquire" "$(in_fn register 's/swap(FREE, Ordering::AcqRel)/swap(FREE, Ordering::Acquire)/')" $task
row green waker.rs "register: swap AcqRel to Release" "$(in_fn register 's/swap(FREE, Ordering::AcqRel)/swap(FREE, Ordering::Release)/')" $task
row red waker.rs "register: a wake-up meanwhile is not passed on" "$(in_fn register 's/!= REGISTERING {/== 99 {/')" $task
row red waker.rs "wake: fetch_or AcqRel to Release" "$(in_fn wake 's/fetch_or(WAKING, Ordering::AcqRel)/fetch_or(WAKING, Ordering::Release)/')" $task
row green waker.rs "wake: fetch_or AcqRel to Acquire" "$(in_fn wake 's/fetch_or(WAKING, Ordering::AcqRel)/fetch_or(WAKING, Ordering::Acquire)/')" $task
row red waker.rs "wake: store Release to Relaxed" "$(in_fn wake 's/store(FREE, Ordering::Release)/store(FREE, Ordering::Relaxed)/')" $task
row red waker.rs "TaskBell::register: no sleep flag" "$(in_fn register 's/self.flag.fall_asleep();//')" $task
row red sleep.rs "must_wake: fence removed, tasks" "$(in_fn must_wake 's/fence(Ordering::SeqCst);/let _ = fence;/')" $task
row red sleep.rs "fall_asleep: fence removed, ready bits" "$(in_fn fall_asleep 's/fence(Ordering::SeqCst);/let _ = fence;/')" $ready

crate_folder=io-backends
wire=wire::
row red wire.rs "notify_room: fence removed" "$(in_fn notify_room 's/fence(Ordering::SeqCst);/let _ = fence;/')" ${wire}an_end
row red wire.rs "notify_room: fence SeqCst to AcqRel" "$(in_fn notify_room 's/fence(Ordering::SeqCst)/fence(Ordering::AcqRel)/')" ${wire}an_end
row green wire.rs "CloseNotice::drop: Release to Relaxed" '/impl Drop for CloseNotice/,/^}/ s/Ordering::Release/Ordering::Relaxed/' ${wire}each_frame
row green wire.rs "put: Acquire to Relaxed" "$(in_fn 'put<' 's/gone.load(Ordering::Acquire)/gone.load(Ordering::Relaxed)/')" ${wire}each_frame
row green wire.rs "is_gone: Acquire to Relaxed" "$(in_fn 'is_gone' 's/gone.load(Ordering::Acquire)/gone.load(Ordering::Relaxed)/')" ${wire}each_frame
row red wire.rs "arm: the blocked flag not set" "$(in_fn 'arm(' 's/blocked.store(true/blocked.store(false/')" ${wire}an_end
row red wire.rs "arm: room not checked again" "$(in_fn 'arm(' 's/ \&\& self.tx.has_room()/ \&\& false/')" ${wire}an_end
xdp=xdp_ring::
row red xdp/ring.rs "look: Acquire to Relaxed" "$(in_fn look 's/Ordering::Acquire/Ordering::Relaxed/')" ${xdp}the_kernel_takes
row red xdp/ring.rs "publish: Release to Relaxed" "$(in_fn publish 's/Ordering::Release/Ordering::Relaxed/')" ${xdp}the_kernel_takes
row red xdp/ring.rs "waiting: Acquire to Relaxed" "$(in_fn waiting 's/Ordering::Acquire/Ordering::Relaxed/')" ${xdp}we_take
row red xdp/ring.rs "release: Release to Relaxed" "$(in_fn release 's/Ordering::Release/Ordering::Relaxed/')" ${xdp}we_take
row red xdp/ring.rs "wants_wakeup: fence removed" "$(in_fn wants_wakeup 's/fence(Ordering::SeqCst);/let _ = fence;/')" ${xdp}the_kernel_sees
row red xdp/ring.rs "wants_wakeup: fence SeqCst to AcqRel" "$(in_fn wants_wakeup 's/fence(Ordering::SeqCst)/fence(Ordering::AcqRel)/')" ${xdp}the_kernel_sees
row red xdp/ring.rs "put: room not asked" "$(in_fn 'put(' 's/self.room(1) == 0/false/')" ${xdp}the_kernel_takes
row red xdp/ring.rs "look: the kernel's lag not counted" "$(in_fn free 's/self.next.wrapping_sub(self.taken)/self.next.wrapping_sub(self.published)/')" ${xdp}the_kernel_takes
crate_folder=frame

# The barrier between the old and the new user of a slot number; it is not in frame/.
if [[ "ledger slots" == *"$pattern"* ]]; then
    rows=$((rows + 1))
    cp engine/src/control/grace_period.rs grace_period.whole
    sed -i 's/completed >= due)/true || completed >= due)/' engine/src/control/grace_period.rs
    cmp -s grace_period.whole engine/src/control/grace_period.rs && { echo "STALE  grace_period.rs"; wrong=$((wrong + 1)); }
    if models slots::; then
        echo "WRONG  grace_period.rs: the barrier is skipped: green (slots::)"
        wrong=$((wrong + 1))
    else
        echo "ok     grace_period.rs: the barrier is skipped: red (slots::)"
    fi
    cp grace_period.whole engine/src/control/grace_period.rs
fi

echo "$rows rows, $wrong wrong"
[[ $wrong == 0 ]]
