//! A sandbox that refuses system calls, as old container profiles do. It is a seccomp filter on a
//! thread of the test.

/// Runs `f` on a thread where these calls fail with `errno`. Returns `None` if seccomp is not
/// available.
pub(crate) fn without<R: Send>(
    calls: &[i64],
    errno: i32,
    f: impl FnOnce() -> R + Send,
) -> Option<R> {
    let step =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for &call in calls {
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32));
        let refuse = libc::SECCOMP_RET_ERRNO | errno as u32;
        filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse));
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let program =
                libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            // SAFETY: the call takes only numbers; it affects only this thread.
            let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            assert_eq!(done, 0);
            // SAFETY: the program and its instructions outlive the call, which copies them.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0,
                    &raw const program,
                )
            };
            (done == 0).then(f)
        });
        let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if done.is_none() {
            strowger_testkit::skip("the kernel has no seccomp");
        }
        done
    })
}
