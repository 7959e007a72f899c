//! An account (user and group) of this machine, and the steps by which a process permanently
//! becomes that account.
//!
//! Afterwards no thread has a capability or can gain one, and other processes of the account cannot
//! read the memory of the process. Open files stay open.

use std::{
    ffi::{CStr, CString},
    fs, io, mem,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use super::{CallError, Errno, Refusal};

/// The folder with the status of each thread of this process.
const TASKS: &str = "/proc/self/task";
/// `CAP_SETGID` and `CAP_SETUID`, which allow a process to become another user.
const SET_IDS: u64 = 1 << 6 | 1 << 7;
/// The capabilities that override file modes and owners.
///
/// `CAP_CHOWN`, `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH`, `CAP_FOWNER`, `CAP_FSETID`,
/// `CAP_LINUX_IMMUTABLE`, `CAP_MKNOD`, `CAP_MAC_OVERRIDE`.
const FILE_CAPABILITIES: u64 = 0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32;
/// Maximum length in bytes of an entry of the user database.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// A user and a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Name of the user.
    pub name: String,
    /// User ID.
    pub user: u32,
    /// Group ID.
    pub group: u32,
}

impl Account {
    /// Looks up the account of this user name. Its group is `group` or, without one, the user's
    /// primary group.
    ///
    /// # Errors
    /// There is no such user or group, the user is root, or this process may not become the user.
    pub fn find(name: &str, group: Option<&str>) -> Result<Self, Refusal> {
        let (user, own_group) = user_of(name)?.ok_or_else(|| {
            let what = format!("there is no user \"{name}\"");
            Refusal::new(what, "`getent passwd` lists the users that there are")
        })?;
        let group = match group {
            None => own_group,
            Some(group) => group_of(group)?.ok_or_else(|| {
                let what = format!("there is no group \"{group}\"");
                Refusal::new(what, "`getent group` lists the groups that there are")
            })?,
        };
        let account = Self { name: name.to_owned(), user, group };
        if user == 0 {
            return Err(Refusal::new("user root has all rights", "name an ordinary user"));
        }
        let [effective, ..] = capabilities()?;
        let may_change = effective & SET_IDS == SET_IDS;
        if account.is_current() || may_change {
            Ok(account)
        } else {
            let what = format!("this process cannot become another user, {name} ({user})");
            Err(Refusal::new(what, "start it as root, or with CAP_SETUID and CAP_SETGID"))
        }
    }

    /// Whether the real, effective and saved IDs of the process are the user and group of this
    /// account.
    fn is_current(&self) -> bool {
        let (mut real, mut effective, mut saved) = (0, 0, 0);
        // SAFETY: each pointer points to a number that may be written.
        unsafe { libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved) };
        let users = [real, effective, saved];
        // SAFETY: as above.
        unsafe { libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved) };
        users == [self.user; 3] && [real, effective, saved] == [self.group; 3]
    }

    /// First step, which is called while the process still has all rights.
    ///
    /// From now on, no program that the process executes gains rights (`PR_SET_NO_NEW_PRIVS`) or
    /// inherits capabilities. Call it before other threads start: each setting applies to one
    /// thread and is inherited by the threads that it starts.
    ///
    /// # Errors
    /// More than one thread runs, or the kernel refused a call.
    pub fn prepare(&self) -> Result<(), Refusal> {
        let threads = statuses()?.len();
        if threads != 1 {
            let what = format!("{threads} threads run, and each has rights of its own");
            return Err(Refusal::new(what, "drop rights before other threads start"));
        }
        let [effective, permitted, _] = capabilities()?;
        // Ambient capabilities must be inheritable, so the ambient set becomes empty too.
        set_capabilities([effective, permitted, 0])?;
        set_process("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1)
    }

    /// Second step: permanently gives the process the user and group of this account, and checks
    /// all threads.
    ///
    /// It sets user and group, removes all supplementary groups and all capabilities, and prevents
    /// other processes of the account from reading the memory. Open files stay open.
    ///
    /// If the process already runs as this account, its supplementary groups stay, and only the
    /// calling thread loses its capabilities. No other thread may have any.
    ///
    /// # Errors
    /// The kernel refused a call, or rights are left. The process must then exit, because it has
    /// lost some of its rights but not all.
    pub fn drop_privileges(&self) -> Result<(), Refusal> {
        if !self.is_current() {
            // The C library's calls affect all threads; the bare system calls would affect only
            // one.
            // SAFETY: no group is passed.
            let done = unsafe { libc::setgroups(0, std::ptr::null()) };
            check("setgroups", done.into())?;
            // SAFETY: the call takes only numbers. The group is set first, because the new user has
            // no right to change it.
            let done = unsafe { libc::setresgid(self.group, self.group, self.group) };
            check("setresgid", done.into())?;
            // SAFETY: the call takes only numbers.
            let done = unsafe { libc::setresuid(self.user, self.user, self.user) };
            check("setresuid", done.into())?;
        }
        set_capabilities([0; 3])?;
        // This call is last, because a change of user resets the flag.
        set_process("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, 0)?;
        self.check_threads()
    }

    /// Checks that all threads have the user and group of the account, have no capabilities and
    /// cannot gain any.
    fn check_threads(&self) -> Result<(), Refusal> {
        let left_by = |status: &str, what: &str| {
            let thread = line(status, "Name").trim_start_matches("Name:").trim();
            rights_left(&format!("{what}, of thread {thread}"))
        };
        for status in statuses()? {
            for (key, wanted) in [("Uid", self.user), ("Gid", self.group)] {
                let mut ids = line(&status, key).split_whitespace().skip(1);
                if !ids.all(|id| id.parse() == Ok(wanted)) {
                    return Err(left_by(&status, line(&status, key)));
                }
            }
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                if number(&status, set) != Some(0) {
                    return Err(left_by(&status, line(&status, set)));
                }
            }
            if number(&status, "NoNewPrivs") != Some(1) {
                return Err(left_by(&status, "new privileges"));
            }
        }
        Ok(())
    }

    /// Runs `what` on this thread with the account's rights on files.
    ///
    /// Files that `what` creates belong to the account. `what` must not start threads, because they
    /// would keep these rights.
    ///
    /// # Errors
    /// This process may not change its rights on files. In this case, `what` did not run.
    ///
    /// # Panics
    /// Aborts the process if the previous rights cannot be restored.
    pub fn with_file_rights<T>(&self, what: impl FnOnce() -> T) -> Result<T, Refusal> {
        if self.is_current() {
            return Ok(what());
        }
        let before = FileRights::now()?;
        let [effective, permitted, inheritable] = before.capabilities;
        // This call is first: if it is refused, nothing has changed yet.
        set_groups(&[])?;
        let done = match self.apply_file_rights([
            effective & !FILE_CAPABILITIES,
            permitted,
            inheritable,
        ]) {
            Ok(()) => Ok(what()),
            Err(error) => Err(error),
        };
        if let Err(error) = before.apply() {
            eprintln!("strowger: cannot restore the rights on files: {error}");
            std::process::abort();
        }
        done
    }

    fn apply_file_rights(&self, capabilities: [u64; 3]) -> Result<(), Refusal> {
        let (user, group) = (self.user, self.group);
        FileRights { user, group, groups: Vec::new(), capabilities }.apply()
    }
}

/// The user, groups and capabilities that decide which files a thread may use.
struct FileRights {
    user: u32,
    group: u32,
    groups: Vec<libc::gid_t>,
    capabilities: [u64; 3],
}

impl FileRights {
    /// Returns the rights of the calling thread.
    fn now() -> Result<Self, Refusal> {
        // SAFETY: no groups are written; the result is their number.
        let count = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
        check("getgroups", count.into())?;
        let mut groups = vec![0; count as usize];
        // SAFETY: `groups` has room for `count` of them.
        let count = unsafe { libc::getgroups(count, groups.as_mut_ptr()) };
        check("getgroups", count.into())?;
        groups.truncate(count as usize);
        let capabilities = capabilities()?;
        Ok(Self { user: super::folder::file_user(), group: file_group(), groups, capabilities })
    }

    /// Gives the calling thread these rights, and checks them.
    fn apply(&self) -> Result<(), Refusal> {
        set_groups(&self.groups)?;
        // SAFETY: the call takes only a number.
        unsafe { libc::setfsgid(self.group) };
        // SAFETY: the call takes only a number.
        unsafe { libc::setfsuid(self.user) };
        set_capabilities(self.capabilities)?;
        let has = (super::folder::file_user(), file_group());
        if has != (self.user, self.group) {
            return Err(rights_left(&format!("the thread uses files as {has:?}")));
        }
        Ok(())
    }
}

/// Sets the groups of this thread only. It makes the system call itself, because the C library's
/// function affects all threads.
fn set_groups(groups: &[libc::gid_t]) -> Result<(), Refusal> {
    // SAFETY: `groups` has this many entries and outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check("setgroups", done)
}

fn file_group() -> u32 {
    // SAFETY: the call takes only a number. An invalid group changes nothing, and the result is the
    // current one.
    let group = unsafe { libc::setfsgid(u32::MAX) };
    group as u32
}

/// Checks that the real user of this process may create and remove files in a folder.
///
/// # Errors
/// The kernel's error.
pub fn may_write_in(folder: &Path) -> io::Result<()> {
    let folder = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: the string ends in a zero byte and outlives the call.
    let may = unsafe { libc::access(folder.as_ptr(), libc::W_OK | libc::X_OK) };
    if may < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Checks that a thread of this process can become another user and that it then has no rights
/// left.
///
/// The check runs on a separate thread, which then ends.
///
/// # Errors
/// The kernel refused a call, or rights are left.
pub fn self_test() -> Result<(), Refusal> {
    const NOBODY: libc::c_long = 65_534;
    let attempt = std::thread::spawn(|| {
        // These are the bare system calls, which affect only this thread, unlike the C library's
        // functions.
        // SAFETY: the call takes only numbers.
        let done = unsafe { libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) };
        check("setresgid", done)?;
        // SAFETY: the call takes only numbers.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        check("setresuid", done)?;
        set_capabilities([0; 3])?;
        let status = fs::read_to_string("/proc/thread-self/status")
            .map_err(|error| CallError { call: "/proc", errno: Errno::of(&error) })?;
        match number(&status, "CapEff") {
            Some(0) => Ok(()),
            _ => Err(rights_left(line(&status, "CapEff"))),
        }
    });
    attempt.join().unwrap_or_else(|_| Err(rights_left("the attempt panicked")))
}

/// Version 3 of the capability header, for the calling thread; each set has two words.
const CAPABILITY_HEADER: [u32; 2] = [0x2008_0522, 0];

/// The calling thread's capabilities: effective, permitted, inheritable.
fn capabilities() -> Result<[u64; 3], Refusal> {
    let mut sets = [[0_u32; 3]; 2];
    let header = CAPABILITY_HEADER;
    // SAFETY: both have the length of version 3 and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    check("capget", done)?;
    let [low, high] = sets;
    Ok(std::array::from_fn(|set| u64::from(high[set]) << 32 | u64::from(low[set])))
}

fn set_capabilities(sets: [u64; 3]) -> Result<(), Refusal> {
    let sets = [sets.map(|set| set as u32), sets.map(|set| (set >> 32) as u32)];
    let header = CAPABILITY_HEADER;
    // SAFETY: both have the length of version 3 and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    check("capset", done)
}

fn set_process(
    step: &'static str,
    option: libc::c_int,
    value: libc::c_ulong,
) -> Result<(), Refusal> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: the call takes only numbers.
    let done = unsafe { libc::prctl(option, value, NONE, NONE, NONE) };
    check(step, done.into())
}

fn check(step: &'static str, result: libc::c_long) -> Result<(), Refusal> {
    if result < 0 {
        return Err(CallError::last(step).into());
    }
    Ok(())
}

/// Returns the error for the case that all calls succeeded but the process still has rights.
fn rights_left(what: &str) -> Refusal {
    Refusal::new(format!("rights are left: {what}"), "")
}

/// Returns the status of each thread. Threads that end in the meantime are skipped.
fn statuses() -> Result<Vec<String>, Refusal> {
    let is_over =
        |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH));
    let read = || -> io::Result<Vec<String>> {
        let of_all =
            fs::read_dir(TASKS)?.map(|task| fs::read_to_string(task?.path().join("status")));
        of_all.filter(|status| !status.as_ref().is_err_and(is_over)).collect()
    };
    read().map_err(|error| CallError { call: TASKS, errno: Errno::of(&error) }.into())
}

fn line<'s>(status: &'s str, key: &str) -> &'s str {
    let is_it = |line: &&str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
    status.lines().find(is_it).unwrap_or_default()
}

/// The value of the line `key` in a thread's status, parsed as hexadecimal.
fn number(status: &str, key: &str) -> Option<u64> {
    u64::from_str_radix(line(status, key).split(':').nth(1)?.trim(), 16).ok()
}

/// IDs of the user with this name and of its group.
fn user_of(name: &str) -> Result<Option<(u32, u32)>, Refusal> {
    look_up(name, "getpwnam_r", |name, room| {
        // SAFETY: all fields are numbers or pointers, for which zero is a valid value.
        let mut entry: libc::passwd = unsafe { mem::zeroed() };
        let mut found = std::ptr::null_mut();
        let (at, len) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: `at` has `len` writable bytes, and all arguments outlive the call.
        let errno =
            unsafe { libc::getpwnam_r(name.as_ptr(), &raw mut entry, at, len, &raw mut found) };
        (errno, (!found.is_null()).then_some((entry.pw_uid, entry.pw_gid)))
    })
}

fn group_of(name: &str) -> Result<Option<u32>, Refusal> {
    look_up(name, "getgrnam_r", |name, room| {
        // SAFETY: all fields are numbers or pointers, for which zero is a valid value.
        let mut entry: libc::group = unsafe { mem::zeroed() };
        let mut found = std::ptr::null_mut();
        let (at, len) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: `at` has `len` writable bytes, and all arguments outlive the call.
        let errno =
            unsafe { libc::getgrnam_r(name.as_ptr(), &raw mut entry, at, len, &raw mut found) };
        (errno, (!found.is_null()).then_some(entry.gr_gid))
    })
}

/// Looks up an entry of the user database. Enlarges the buffer until the entry fits.
fn look_up<T>(
    name: &str,
    step: &'static str,
    ask: impl Fn(&CStr, &mut [u8]) -> (i32, Option<T>),
) -> Result<Option<T>, Refusal> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let mut room = vec![0; 4096];
    loop {
        match ask(&name, &mut room) {
            (libc::ERANGE, _) if room.len() < ENTRY_BYTES_MAX => room.resize(2 * room.len(), 0),
            // Some C libraries return these errors if the name is unknown.
            (0 | libc::ENOENT | libc::ESRCH, found) => return Ok(found),
            (errno, _) => {
                return Err(CallError::new(step, errno).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_accounts_and_root_are_refused() {
        let refused = |name, group| Account::find(name, group).unwrap_err().to_string();
        assert!(refused("no-such-user", None).contains("there is no user \"no-such-user\""));
        assert!(refused("no\0user", None).contains("there is no user"));
        assert!(refused("root", None).contains("name an ordinary user"));
        assert!(refused("nobody", Some("no-such-group")).contains("there is no group"));
    }

    #[test]
    fn files_are_used_with_the_account_s_rights_and_then_with_the_former_ones() {
        let account = Account { name: "nobody".to_owned(), user: 65_534, group: 65_534 };
        let before = (super::super::folder::file_user(), file_group(), capabilities().unwrap());
        let path = std::env::temp_dir().join(format!("strowger-files-{}", std::process::id()));
        let Ok(done) = account.with_file_rights(|| {
            let made = fs::write(&path, "x").map(|()| fs::metadata(&path));
            (made, fs::read("/proc/1/environ").is_err())
        }) else {
            return strowger_testkit::skip("only root may change its user");
        };
        let made = done.0.unwrap().unwrap();
        let _ = fs::remove_file(&path);
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!((made.uid(), made.gid(), done.1), (65_534, 65_534, true));
        let after = (super::super::folder::file_user(), file_group(), capabilities().unwrap());
        assert_eq!(after, before);
    }

    #[test]
    fn a_process_of_several_threads_keeps_its_rights_and_gets_an_error() {
        // The test harness runs each test on a second thread.
        let before = capabilities().unwrap();
        let account = Account { name: "somebody".to_owned(), user: 7, group: 7 };
        let refused = account.prepare();
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("threads run"), "{refused}");
        assert_eq!(capabilities().unwrap(), before);
        // The check finds the rights that are left.
        let left = account.check_threads().unwrap_err().to_string();
        assert!(left.starts_with("rights are left: Uid:"), "{left}");
    }

    #[test]
    fn the_self_test_succeeds_for_root_only() {
        let may = Account::find("nobody", None).is_ok();
        match self_test() {
            Ok(()) => assert!(may),
            Err(why) => assert!(!may && why.to_string().contains("setresgid"), "{why}"),
        }
    }
}
