//! DPDK's testpmd over AF_XDP, if installed: a separate process with one forwarding core. It ends
//! when its standard input closes, so it does not outlive the benchmark.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::wires::{Tid, Wires, time_of};
use crate::{Failure, machine::Cores};

/// CPU time after which a thread of testpmd is regarded as polling.
const AT_WORK: Duration = Duration::from_millis(20);

/// Longest time that testpmd may take to start, and to end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(15);

/// A running testpmd.
pub(crate) struct Testpmd {
    process: Child,
}

impl Testpmd {
    /// The path of the command, or the reason why there is none.
    pub(crate) fn installed() -> Result<PathBuf, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).map(|at| at.join("dpdk-testpmd"));
        let missing = "not installed: dpdk-testpmd (Debian: dpdk-dev librte-net-af-xdp23 \
                       librte-mempool-ring23)";
        places.find(|at| at.is_file()).ok_or_else(|| missing.to_owned())
    }

    /// Starts testpmd, and waits until it forwards from each wire to the other.
    pub(crate) fn start(command: &Path, wires: &Wires, cores: &Cores) -> Result<Self, Failure> {
        let idle = cores.sources.last().unwrap_or(&cores.sink);
        let device = |n, interface| format!("--vdev=net_af_xdp{n},iface={interface}");
        let process = Command::new(command)
            .args(["--no-huge", "-m", "512", "--no-pci", "--no-shconf", "--no-telemetry"])
            .arg(format!("--lcores=0@{idle},1@{}", cores.forwarder))
            .args([device(0, &wires.inward), device(1, &wires.outward)])
            .args(["--", "--forward-mode=macswap", "--auto-start", "--nb-cores=1"])
            .args(["--total-num-mbufs=32768", "--burst=64"])
            .env("RUNTIME_DIRECTORY", "/run")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Failure::kernel("starting dpdk-testpmd"))?;
        let mut testpmd = Self { process };
        testpmd.wait_until_ready()?;
        Ok(testpmd)
    }

    /// Waits until the forwarding thread has used CPU time, because it never blocks once it
    /// forwards. The output of testpmd cannot be used, because without a terminal it is buffered.
    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + EXIT_TIMEOUT;
        loop {
            let busy = time_of(&self.workers());
            if busy.values().any(|time| *time > AT_WORK) {
                return Ok(());
            }
            let ended = self.process.try_wait().map_err(Failure::kernel("waiting for testpmd"))?;
            if ended.is_some() || Instant::now() > deadline {
                let _ = self.process.kill();
                let mut text = String::new();
                if let Some(mut stderr) = self.process.stderr.take() {
                    let _ = stderr.read_to_string(&mut text);
                }
                let lines: Vec<_> = text.lines().rev().take(3).collect();
                let reason = lines.join(" / ");
                return Err(Failure::Refused(format!("dpdk-testpmd does not forward: {reason}")));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The forwarding threads of testpmd.
    fn workers(&self) -> Vec<Tid> {
        let is_worker = |tid: &Tid| {
            let comm = fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
            comm.contains("worker")
        };
        self.threads().into_iter().filter(is_worker).collect()
    }

    /// All threads of testpmd.
    pub(crate) fn threads(&self) -> Vec<Tid> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id()));
        let names = tasks.into_iter().flatten().flatten().map(|task| task.file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).collect()
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // testpmd ends when its standard input closes.
        drop(self.process.stdin.take());
        let deadline = Instant::now() + EXIT_TIMEOUT;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.process.kill();
                let _ = self.process.wait();
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
