//! An account of this machine, and how a process becomes it for good: no capability is left, none
//! comes back, and nobody else of that account may look into its memory. It never closes anything.

use std::{
    ffi::{CStr, CString},
    fs, io, mem,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use super::{CallError, Errno, Refusal};

/// Where the kernel says what a thread may do.
const TASKS: &str = "/proc/self/task";
/// `CAP_SETGID` and `CAP_SETUID`, as bits.
const BITS_OF_OTHERS: u64 = 1 << 6 | 1 << 7;
/// The capabilities that a file's mode does not stop: `CAP_CHOWN`, `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH`,
/// `CAP_FOWNER`, `CAP_FSETID`, `CAP_LINUX_IMMUTABLE`, `CAP_MKNOD`, `CAP_MAC_OVERRIDE`.
const BITS_OF_FILES: u64 = 0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32;
/// A line of the user database is no longer than this.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A user and its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub name: String,
    /// Its number.
    pub user: u32,
    /// The number of the group.
    pub group: u32,
}

impl Account {
    /// The account of this name, with this group, or the user's own.
    ///
    /// # Errors
    /// There is no such user or group, the user is root, or this process has no right to become the user.
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
        let may_change = effective & BITS_OF_OTHERS == BITS_OF_OTHERS;
        if account.is_ours() || may_change {
            Ok(account)
        } else {
            let what = format!("this process cannot become another user, {name} ({user})");
            Err(Refusal::new(what, "start it as root, or with CAP_SETUID and CAP_SETGID"))
        }
    }

    /// Whether the process is this user already, in every sense.
    fn is_ours(&self) -> bool {
        let (mut real, mut effective, mut saved) = (0, 0, 0);
        // SAFETY: each points to a number that may be written.
        unsafe { libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved) };
        let users = [real, effective, saved];
        // SAFETY: as above.
        unsafe { libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved) };
        users == [self.user; 3] && [real, effective, saved] == [self.group; 3]
    }

    /// The first half, while all rights are still there: no program that is run from here on has
    /// more rights than the process (`PR_SET_NO_NEW_PRIVS`), and none inherits any. To be called
    /// before any other thread is started, since both are a thread's own and pass to those that it
    /// starts.
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
        // What is ambient must be inheritable, too, so that set is empty now as well.
        set_capabilities([effective, permitted, 0])?;
        set_process("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1)
    }

    /// The second half: makes this process the account's for good. User, group and no further groups;
    /// no capability in any set; its memory closed to others of the account. What is open stays
    /// open. Then it looks whether that is so for every thread.
    ///
    /// A process that is this user already and has capabilities loses those of the calling thread
    /// alone: it is to have no other then.
    ///
    /// # Errors
    /// The kernel refused a call, or rights are left. The process then has fewer rights than before and more
    /// than it should: it has to end.
    pub fn drop_privileges(&self) -> Result<(), Refusal> {
        if !self.is_ours() {
            // The C library's calls, which concern all threads, as the kernel's would not.
            // SAFETY: no group is passed.
            let done = unsafe { libc::setgroups(0, std::ptr::null()) };
            check("setgroups", done.into())?;
            // SAFETY: takes numbers. The group first: the user has no right to change it.
            let done = unsafe { libc::setresgid(self.group, self.group, self.group) };
            check("setresgid", done.into())?;
            // SAFETY: takes numbers.
            let done = unsafe { libc::setresuid(self.user, self.user, self.user) };
            check("setresuid", done.into())?;
        }
        set_capabilities([0; 3])?;
        // Last: to change the user sets it anew.
        set_process("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, 0)?;
        self.look()
    }

    /// Whether all threads are as they are to be.
    fn look(&self) -> Result<(), Refusal> {
        let kept_by = |status: &str, what: &str| {
            let thread = line(status, "Name").trim_start_matches("Name:").trim();
            kept(&format!("{what}, of thread {thread}"))
        };
        for status in statuses()? {
            for (key, wanted) in [("Uid", self.user), ("Gid", self.group)] {
                let mut ids = line(&status, key).split_whitespace().skip(1);
                if !ids.all(|id| id.parse() == Ok(wanted)) {
                    return Err(kept_by(&status, line(&status, key)));
                }
            }
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                if number(&status, set) != Some(0) {
                    return Err(kept_by(&status, line(&status, set)));
                }
            }
            if number(&status, "NoNewPrivs") != Some(1) {
                return Err(kept_by(&status, "new privileges"));
            }
        }
        Ok(())
    }

    /// Does something with the account's rights on files and no others: for this thread alone, and until it is
    /// done. What it makes is the account's. It must start no thread, which would keep these rights.
    ///
    /// # Errors
    /// This process may not do so; then nothing was done.
    ///
    /// # Panics
    /// Ends the process if the rights of before cannot be had again.
    pub fn with_file_rights<T>(&self, what: impl FnOnce() -> T) -> Result<T, Refusal> {
        if self.is_ours() {
            return Ok(what());
        }
        let before = FileRights::now()?;
        let [effective, permitted, inheritable] = before.capabilities;
        // First, and alone: where this is refused, nothing has changed.
        set_groups(&[])?;
        let done = match self.take_files([effective & !BITS_OF_FILES, permitted, inheritable]) {
            Ok(()) => Ok(what()),
            Err(error) => Err(error),
        };
        if let Err(error) = before.take() {
            eprintln!("strowger: rights on files cannot be taken back: {error}");
            std::process::abort();
        }
        done
    }

    fn take_files(&self, capabilities: [u64; 3]) -> Result<(), Refusal> {
        let (user, group) = (self.user, self.group);
        FileRights { user, group, groups: Vec::new(), capabilities }.take()
    }
}

/// What decides which files a thread may use.
struct FileRights {
    user: u32,
    group: u32,
    groups: Vec<libc::gid_t>,
    capabilities: [u64; 3],
}

impl FileRights {
    /// Those of the calling thread.
    fn now() -> Result<Self, Refusal> {
        // SAFETY: no groups are to be written; the answer is how many there are.
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

    /// Gives the calling thread these rights, and looks whether it has them.
    fn take(&self) -> Result<(), Refusal> {
        set_groups(&self.groups)?;
        // SAFETY: takes a number.
        unsafe { libc::setfsgid(self.group) };
        // SAFETY: takes a number.
        unsafe { libc::setfsuid(self.user) };
        set_capabilities(self.capabilities)?;
        let has = (super::folder::file_user(), file_group());
        if has != (self.user, self.group) {
            return Err(kept(&format!("files are used as {has:?}")));
        }
        Ok(())
    }
}

/// The call itself, not the C library's, so that it concerns this thread alone.
fn set_groups(groups: &[libc::gid_t]) -> Result<(), Refusal> {
    // SAFETY: there are so many groups, and they live through the call.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check("setgroups", done)
}

fn file_group() -> u32 {
    // SAFETY: takes a number. One that is no group changes nothing, and the answer is which it is.
    let group = unsafe { libc::setfsgid(u32::MAX) };
    group as u32
}

/// Whether this process, as it is, may make and remove files in a folder.
///
/// # Errors
/// The kernel's reason why not.
pub fn may_write_in(folder: &Path) -> io::Result<()> {
    let folder = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: a string that ends in zero and lives through the call.
    let may = unsafe { libc::access(folder.as_ptr(), libc::W_OK | libc::X_OK) };
    if may < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a thread of this process may become another user and lose all rights by it; tried on a
/// thread that then ends.
///
/// # Errors
/// The kernel refused a call, or rights are left.
pub fn self_test() -> Result<(), Refusal> {
    const NOBODY: libc::c_long = 65_534;
    let attempt = std::thread::spawn(|| {
        // The calls themselves, not the C library's, so that they concern this thread alone.
        // SAFETY: takes numbers.
        let done = unsafe { libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) };
        check("setresgid", done)?;
        // SAFETY: takes numbers.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        check("setresuid", done)?;
        set_capabilities([0; 3])?;
        let status = fs::read_to_string("/proc/thread-self/status")
            .map_err(|error| CallError { call: "/proc", errno: Errno::of(&error) })?;
        match number(&status, "CapEff") {
            Some(0) => Ok(()),
            _ => Err(kept(line(&status, "CapEff"))),
        }
    });
    attempt.join().unwrap_or_else(|_| Err(kept("the trial panicked")))
}

/// Version 3 of the header, for the calling thread; sets are two words each.
const CAPABILITY_HEADER: [u32; 2] = [0x2008_0522, 0];

/// Those of the calling thread: effective, permitted, inheritable.
fn capabilities() -> Result<[u64; 3], Refusal> {
    let mut sets = [[0_u32; 3]; 2];
    let header = CAPABILITY_HEADER;
    // SAFETY: both are as long as version 3 says, and live through the call.
    let done = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    check("capget", done)?;
    let [low, high] = sets;
    Ok(std::array::from_fn(|set| u64::from(high[set]) << 32 | u64::from(low[set])))
}

fn set_capabilities(sets: [u64; 3]) -> Result<(), Refusal> {
    let sets = [sets.map(|set| set as u32), sets.map(|set| (set >> 32) as u32)];
    let header = CAPABILITY_HEADER;
    // SAFETY: both are as long as version 3 says, and live through the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    check("capset", done)
}

fn set_process(
    step: &'static str,
    option: libc::c_int,
    value: libc::c_ulong,
) -> Result<(), Refusal> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: takes numbers.
    let done = unsafe { libc::prctl(option, value, NONE, NONE, NONE) };
    check(step, done.into())
}

fn check(step: &'static str, result: libc::c_long) -> Result<(), Refusal> {
    if result < 0 {
        return Err(CallError::last(step).into());
    }
    Ok(())
}

/// All calls succeeded, and still the process has rights that it should not have.
fn kept(what: &str) -> Refusal {
    Refusal::new(format!("rights are left: {what}"), "")
}

/// What the kernel says of each thread. One that has just ended is none.
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

/// Of a line with one number in hex.
fn number(status: &str, key: &str) -> Option<u64> {
    u64::from_str_radix(line(status, key).split(':').nth(1)?.trim(), 16).ok()
}

/// User and group of this name.
fn user_of(name: &str) -> Result<Option<(u32, u32)>, Refusal> {
    look_up(name, "getpwnam_r", |name, room| {
        // SAFETY: all its fields are numbers and pointers, for which zero is a value.
        let mut entry: libc::passwd = unsafe { mem::zeroed() };
        let mut found = std::ptr::null_mut();
        let (at, len) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: `at` has `len` bytes to be written, and all else lives through the call.
        let errno =
            unsafe { libc::getpwnam_r(name.as_ptr(), &raw mut entry, at, len, &raw mut found) };
        (errno, (!found.is_null()).then_some((entry.pw_uid, entry.pw_gid)))
    })
}

fn group_of(name: &str) -> Result<Option<u32>, Refusal> {
    look_up(name, "getgrnam_r", |name, room| {
        // SAFETY: all its fields are numbers and pointers, for which zero is a value.
        let mut entry: libc::group = unsafe { mem::zeroed() };
        let mut found = std::ptr::null_mut();
        let (at, len) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: `at` has `len` bytes to be written, and all else lives through the call.
        let errno =
            unsafe { libc::getgrnam_r(name.as_ptr(), &raw mut entry, at, len, &raw mut found) };
        (errno, (!found.is_null()).then_some(entry.gr_gid))
    })
}

/// Asks the user database, with more room as long as it says that there is too little.
fn look_up<T>(
    name: &str,
    step: &'static str,
    ask: impl Fn(&CStr, &mut [u8]) -> (i32, Option<T>),
) -> Result<Option<T>, Refusal> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let mut room = vec![0; 4096];
    loop {
        match ask(&name, &mut room) {
            (libc::ERANGE, _) if room.len() < LINE_BYTES_MAX => room.resize(2 * room.len(), 0),
            // What is said, by some libraries, of a name that is not there.
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
    fn who_is_not_there_and_who_may_do_everything_is_refused() {
        let refused = |name, group| Account::find(name, group).unwrap_err().to_string();
        assert!(refused("no-such-user", None).contains("there is no user \"no-such-user\""));
        assert!(refused("no\0user", None).contains("there is no user"));
        assert!(refused("root", None).contains("name an ordinary user"));
        assert!(refused("nobody", Some("no-such-group")).contains("there is no group"));
    }

    #[test]
    fn files_are_used_with_the_account_s_rights_and_with_those_of_before_afterwards() {
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
    fn a_process_of_several_threads_keeps_its_rights_and_is_told() {
        // The test runs on a thread beside the main one.
        let before = capabilities().unwrap();
        let account = Account { name: "somebody".to_owned(), user: 7, group: 7 };
        let refused = account.prepare();
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("threads run"), "{refused}");
        assert_eq!(capabilities().unwrap(), before);
        // And what is left is found on any of them.
        let left = account.look().unwrap_err().to_string();
        assert!(left.starts_with("rights are left: Uid:"), "{left}");
    }

    #[test]
    fn a_rehearsal_says_what_root_may_and_others_may_not() {
        let may = Account::find("nobody", None).is_ok();
        match self_test() {
            Ok(()) => assert!(may),
            Err(why) => assert!(!may && why.to_string().contains("setresgid"), "{why}"),
        }
    }
}
