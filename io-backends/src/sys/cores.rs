//! Determines the cores that this process may use, and binds threads to cores.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The numbers of the cores that this thread may run on, in ascending order.
///
/// Containers and `taskset` restrict them. The list is empty if the kernel does not report the
/// cores.
pub fn usable_cores() -> Vec<usize> {
    let mut set = empty();
    // SAFETY: `set` is a whole `cpu_set_t`, writable, and outlives the call.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if got != 0 {
        return Vec::new();
    }
    let highest = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: `CPU_ISSET` reads bit `core` of the set, and `core` is below the number of bits.
    (0..highest).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// The processor time that the control groups of this process allow, as a number of cores (`0.5`).
/// `None` means no limit.
///
/// It considers both versions of control groups, and all visible parent groups of the process's
/// group.
pub fn cpu_quota() -> Option<f64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let groups = read(Path::new("/proc/self/cgroup"))?;
    quota_of(&groups, &read(Path::new("/proc/self/mountinfo"))?, read)
}

/// The lowest quota, from the contents of `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn quota_of(groups: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> Option<f64> {
    let ratio = |quota: &str, period: &str| {
        let (quota, period) =
            (quota.trim().parse::<f64>().ok()?, period.trim().parse::<f64>().ok()?);
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    };
    // cgroups(7): `hierarchy:controllers:path`; version 2 has hierarchy 0 and names no controllers.
    let in_group = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_second = number == "0" && controllers.is_empty();
        if !is_second && !controllers.split(',').any(|name| name == "cpu") {
            return None;
        }
        let (at, top) = folder_of(path, mounts, is_second)?;
        let here = |folder: &Path| {
            if is_second {
                let max = read(&folder.join("cpu.max"))?;
                let (quota, period) = max.trim().split_once(' ')?;
                return ratio(quota, period);
            }
            ratio(
                &read(&folder.join("cpu.cfs_quota_us"))?,
                &read(&folder.join("cpu.cfs_period_us"))?,
            )
        };
        let above = at.ancestors().take_while(|folder| folder.starts_with(&top));
        above.filter_map(here).min_by(f64::total_cmp)
    };
    groups.lines().filter_map(in_group).min_by(f64::total_cmp)
}

/// The folder of a group, and the mount point of its hierarchy (proc(5), mountinfo).
fn folder_of(group: &str, mounts: &str, is_second: bool) -> Option<(PathBuf, PathBuf)> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let fits = match is_second {
            true => kind == "cgroup2",
            false => kind == "cgroup" && options.split(',').any(|name| name == "cpu"),
        };
        fits.then(|| (root.to_owned(), PathBuf::from(point)))
    };
    let (root, top) = mounts.lines().find_map(mount)?;
    // In a container, the root of the mount is the container's own group, or the path is relative
    // to it.
    let inner = Path::new(group).strip_prefix(&root).unwrap_or(Path::new(group));
    let inner = inner.strip_prefix("/").unwrap_or(inner);
    let at = if inner.components().any(|part| part == std::path::Component::ParentDir) {
        top.clone()
    } else {
        top.join(inner)
    };
    Some((at, top))
}

/// The number of workers to start.
///
/// It is one per usable core, but at most the quota (rounded down) and at least one.
pub fn workers_worth(usable: usize, quota: Option<f64>) -> usize {
    let by_quota = quota.map_or(usize::MAX, |quota| quota as usize);
    usable.min(by_quota).max(1)
}

/// Binds the calling thread to a core.
///
/// # Errors
/// A sentence that names the core, the reason, and the usable cores.
pub fn pin_to_core(core: usize) -> Result<(), String> {
    let mut set = empty();
    if core >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(format!("core {core}: there is none; usable: {:?}", usable_cores()));
    }
    // SAFETY: `CPU_SET` writes bit `core` of the set; the check above keeps it in range.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a whole `cpu_set_t`, and outlives the call.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(format!("core {core}: {error}; usable: {:?}", usable_cores()))
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: a `cpu_set_t` is an array of integers, for which zero is a valid value: no core.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "4:memory:/a/b\n3:cpu,cpuacct:/a/b\n";
    const V1_MOUNTS: &str = "\
30 23 0:28 / /proc rw,relatime - proc proc rw
31 23 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
";
    const V2_MOUNTS: &str =
        "31 23 0:29 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn files<'f>(all: &'f [(&'f str, &'f str)]) -> impl Fn(&Path) -> Option<String> + 'f {
        move |path| {
            let found = all.iter().find(|(name, _)| Path::new(name) == path)?;
            Some(found.1.to_owned())
        }
    }

    #[test]
    fn the_lowest_quota_of_all_groups_is_found_in_both_versions() {
        let cpu = "/sys/fs/cgroup/cpu,cpuacct";
        let of = |quota: &str, at: &str| {
            let names =
                [format!("{cpu}{at}/cpu.cfs_quota_us"), format!("{cpu}{at}/cpu.cfs_period_us")];
            let all = [(names[0].as_str(), quota), (names[1].as_str(), "100000\n")];
            quota_of(V1, V1_MOUNTS, files(&all))
        };
        assert_eq!(of("50000\n", "/a/b"), Some(0.5));
        assert_eq!(of("250000\n", "/a"), Some(2.5), "a group above");
        assert_eq!(of("-1\n", "/a/b"), None);
        assert_eq!(of("50000\n", "/other"), None);

        let v2 = "0::/slice/unit\n";
        let of = |all: &[(&str, &str)]| quota_of(v2, V2_MOUNTS, files(all));
        assert_eq!(of(&[("/sys/fs/cgroup/slice/unit/cpu.max", "150000 100000\n")]), Some(1.5));
        assert_eq!(of(&[("/sys/fs/cgroup/slice/unit/cpu.max", "max 100000\n")]), None);
        let both = [
            ("/sys/fs/cgroup/slice/unit/cpu.max", "300000 100000\n"),
            ("/sys/fs/cgroup/slice/cpu.max", "20000 10000\n"),
        ];
        assert_eq!(of(&both), Some(2.0));
        // In a container, the root of the mount is the container's own group, or the path is
        // relative to it.
        let inside = "31 23 0:29 /docker/x /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        let all = [
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000"),
        ];
        assert_eq!(quota_of("3:cpu:/docker/x\n", inside, files(&all)), Some(2.0));
        let top = [("/sys/fs/cgroup/cpu.max", "70000 100000")];
        for group in ["0::/\n", "0::/../above\n"] {
            assert_eq!(quota_of(group, V2_MOUNTS, files(&top)), Some(0.7), "{group}");
        }
        assert_eq!(quota_of("", "", files(&[])), None);
    }

    #[test]
    fn workers_are_no_more_than_the_quota_keeps_busy() {
        for (usable, quota, workers) in [
            (8, None, 8),
            (8, Some(0.5), 1),
            (8, Some(1.9), 1),
            (8, Some(4.0), 4),
            (2, Some(4.0), 2),
            (0, None, 1),
        ] {
            assert_eq!(workers_worth(usable, quota), workers, "{usable} {quota:?}");
        }
    }

    #[test]
    fn a_thread_can_be_pinned_to_a_usable_core() {
        let cores = usable_cores();
        let last = *cores.last().expect("a thread runs somewhere");
        let pinned = std::thread::spawn(move || {
            pin_to_core(last).expect("it is usable");
            usable_cores()
        });
        assert_eq!(pinned.join().expect("no panic"), [last]);
    }

    #[test]
    fn an_unknown_core_is_a_clear_error() {
        let error = pin_to_core(1_000_000).expect_err("no machine has it");
        assert!(error.starts_with("core 1000000"), "{error}");
        let error = pin_to_core(1023).expect_err("no test machine has it");
        assert!(error.contains("usable"), "{error}");
    }
}
