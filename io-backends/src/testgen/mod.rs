//! Traffic generators for benchmarks of Ethernet ports (feature `testgen`).
//!
//! A source sends frames as fast as possible or at a fixed interval. A sink counts the frames and
//! their delays. A redirect is the simplest possible forwarder. All three are XDP programs, so that
//! they are not the bottleneck of the measurement.

mod programs;

use std::{
    mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

pub use self::programs::TRAILER_BYTES;
use self::programs::{BUCKET_SHIFT, BUCKETS, BUCKETS_AT, MAGIC, SINK_BYTES, SOURCE_BYTES};
use crate::{
    sys::{CallError, Errno, Refusal, cores::pin_to_core},
    xdp::{
        bpf::{self, Attach, bpf},
        interface::{Interface, Unfit},
        select_mode::with_remedy,
        socket::errno,
    },
};

const MAP_READ: i32 = 1;
const PROGRAM_RUN: i32 = 10;
const MAP_TYPE_ARRAY: u32 = 2;
/// Flag: the frames are processed as if received, and the program's result decides where each one
/// goes.
const LIVE_FRAMES: u32 = 1 << 1;
/// Number of frames in one batch. A flood uses the first value; a paced source, which sends each
/// frame when it is due, uses the second.
const BATCH_FLOOD: u32 = 64;
const BATCH_PACED: u32 = 1;
/// Number of frames in one call.
///
/// One call lasts for the whole measurement, because the first frame of each call takes the kernel
/// tens of milliseconds. A signal ends the call.
const FRAMES_A_CALL: u32 = u32::MAX;
const NICEST: i32 = 19;
const GRO_SET: u32 = 0x2c; // ETHTOOL_SGRO

/// Buffer size of a packet socket. It is the same as that of an AF_PACKET port.
const PACKET_BUFFER_BYTES: i32 = 4 << 20;

/// `union bpf_attr` for running a program.
#[repr(C)]
#[derive(Default)]
struct ProgramRun {
    program_fd: u32,
    result: u32,
    bytes_in: u32,
    bytes_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_bytes_in: u32,
    context_bytes_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    _pad: u32,
}

#[repr(C)]
struct MapRead {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    value: u32,
}

const _: () = assert!(mem::size_of::<ProgramRun>() == 80);
const _: () = assert!(mem::size_of::<MapRead>() == 32);
const _: () = assert!(mem::size_of::<EthtoolValue>() == 8);

fn at(call: &'static str) -> impl Fn(i32) -> Refusal {
    move |errno| with_remedy(CallError::new(call, errno))
}

fn find(interface: &str) -> Result<Interface, Refusal> {
    Interface::find(interface).map_err(|unfit| match unfit {
        Unfit::Missing => at("if_nametoindex")(libc::ENODEV),
        Unfit::NotEthernet => at("SIOCGIFHWADDR")(libc::EINVAL),
        Unfit::Call(error) => with_remedy(error),
    })
}

/// Reads the value of a map with one entry.
fn value_of<const BYTES: usize>(map: &OwnedFd) -> Result<Box<[u64]>, Refusal> {
    let key = 0_u32;
    let mut value = vec![0_u64; BYTES / 8].into_boxed_slice();
    let read = MapRead {
        map_fd: map.as_raw_fd() as u32,
        _pad: 0,
        key: std::ptr::from_ref(&key).addr() as u64,
        value: value.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the key has four bytes, and the value has the size of the map's values; both outlive
    // the call.
    unsafe { bpf("BPF_MAP_LOOKUP_ELEM", MAP_READ, &read) }.map_err(with_remedy)?;
    Ok(value)
}

/// Sends copies of one frame on an interface.
///
/// The frames have no skb, like the frames that a NIC driver passes to XDP.
#[derive(Debug)]
pub struct Source {
    program: OwnedFd,
    counts: OwnedFd,
    frame: Vec<u8>,
    batch: u32,
}

impl Source {
    /// Makes a source that sends copies of `frame`. In each copy, a trailer replaces the last
    /// [`TRAILER_BYTES`] bytes.
    ///
    /// Without `interval_ns`, it sends as fast as possible. Otherwise it sends one frame in every
    /// `interval_ns`, and each frame contains the time at which it was sent.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new(interface: &str, frame: &[u8], interval_ns: Option<u32>) -> Result<Self, Refusal> {
        let index = find(interface)?.index;
        let mut frame = frame.to_vec();
        let trailer = frame.len().checked_sub(TRAILER_BYTES);
        let trailer = trailer.ok_or_else(|| at("a frame's trailer")(libc::EINVAL))?;
        frame[trailer..trailer + 4].copy_from_slice(&MAGIC.to_ne_bytes());
        frame[trailer + 4..].fill(0);
        let counts = bpf::map(MAP_TYPE_ARRAY, SOURCE_BYTES as u32, 1).map_err(with_remedy)?;
        let interval_ns = interval_ns.map_or(0, |interval| interval.max(1));
        let program = programs::source(counts.as_raw_fd(), index, frame.len() as u16, interval_ns);
        let program = bpf::load(&program).map_err(with_remedy)?;
        let batch = if interval_ns > 0 { BATCH_PACED } else { BATCH_FLOOD };
        Ok(Self { program, counts, frame, batch })
    }

    /// Starts to send on this core.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn start(self: &Arc<Self>, core: usize) -> Result<Sending, Refusal> {
        let refused =
            |error: std::io::Error| at("a thread")(error.raw_os_error().unwrap_or_default());
        hear_signals().map_err(at("sigaction"))?;
        let (source, stopped) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let (stop, (tell, thread_number)) = (stopped.clone(), mpsc::channel());
        let thread = thread::Builder::new().name("source".to_owned()).spawn(move || {
            // An error is ignored. If the core is not available, the results show a lower offered
            // rate.
            let _ = pin_to_core(core);
            // SAFETY: the call takes nothing and returns a number.
            let number = unsafe { libc::gettid() };
            // The source runs with the lowest priority. The scheduler divides the weight of a
            // session among the cores that the session keeps busy, so a source of normal priority
            // would reduce the share of a forwarder that competes with the kernel for its core.
            // SAFETY: the call takes only numbers; it affects only this thread.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, number as libc::id_t, NICEST) };
            let _ = tell.send(number);
            source.send(&stopped)
        });
        let thread = thread.map_err(refused)?;
        let number = thread_number.recv().map_err(|_| at("a thread")(libc::ESRCH))?;
        Ok(Sending { stop, number, thread: Some(thread) })
    }

    fn send(&self, stop: &AtomicBool) -> Result<(), Refusal> {
        let run = ProgramRun {
            program_fd: self.program.as_raw_fd() as u32,
            bytes_in: self.frame.len() as u32,
            data_in: self.frame.as_ptr().expose_provenance() as u64,
            repeat: FRAMES_A_CALL,
            flags: LIVE_FRAMES,
            batch: self.batch,
            ..ProgramRun::default()
        };
        // Relaxed: the stopping thread repeats its signal until this thread ends.
        while !stop.load(Ordering::Relaxed) {
            // SAFETY: the program reads the frame, with its length; nothing is written.
            match unsafe { bpf("BPF_PROG_TEST_RUN", PROGRAM_RUN, &run) } {
                Ok(_) | Err(CallError { errno: Errno(libc::EINTR), .. }) => {}
                Err(why) => return Err(with_remedy(why)),
            }
        }
        Ok(())
    }

    /// Number of frames offered to the interface so far, including those for which it had no room.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn sent(&self) -> Result<u64, Refusal> {
        Ok(value_of::<SOURCE_BYTES>(&self.counts)?[1])
    }
}

/// A source that is sending; dropping it stops the source.
#[derive(Debug)]
pub struct Sending {
    stop: Arc<AtomicBool>,
    number: libc::pid_t,
    thread: Option<JoinHandle<Result<(), Refusal>>>,
}

impl Sending {
    /// Stops the source.
    ///
    /// # Errors
    /// The reason why the source ended early. Running programs on live frames needs Linux 5.18.
    pub fn stop(mut self) -> Result<(), Refusal> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Refusal> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.stop.store(true, Ordering::Relaxed);
        let (process, signal) = (std::process::id(), signal());
        while !thread.is_finished() {
            // SAFETY: the call takes only numbers. The thread is ours and not yet joined.
            unsafe { libc::syscall(libc::SYS_tgkill, process, self.number, signal) };
            thread::sleep(Duration::from_millis(1));
        }
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A real-time signal that is unlikely to be in use.
fn signal() -> i32 {
    libc::SIGRTMIN() + 7
}

/// Installs a handler that does nothing, so that the only effect of the signal is to end a system
/// call.
fn hear_signals() -> Result<(), i32> {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: all fields are numbers or pointers, for which zero is a valid value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
    // SAFETY: the action outlives the call, and its handler does nothing.
    let set = unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) };
    if set < 0 { Err(errno()) } else { Ok(()) }
}

/// Counts the frames of a source at the interface on which they arrive. A dropped sink is detached.
#[derive(Debug)]
pub struct Sink {
    _link: OwnedFd,
    counts: OwnedFd,
}

/// Counts of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Frames with the expected length and trailer.
    pub right: u64,
    /// Frames of the sink's ethertype with another length or trailer.
    pub wrong: u64,
    /// Number of frames for each delay, in buckets of [`BUCKET_NS`]. The last bucket counts all
    /// longer delays.
    pub delays: Box<[u64]>,
}

/// Width of a bucket of delays, in nanoseconds.
pub const BUCKET_NS: u64 = 1 << BUCKET_SHIFT;

impl Sink {
    /// Attaches a sink for frames of this ethertype and this length.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn attach(interface: &str, ethertype: u16, frame_bytes: usize) -> Result<Self, Refusal> {
        let index = find(interface)?.index;
        let counts = bpf::map(MAP_TYPE_ARRAY, SINK_BYTES as u32, 1).map_err(with_remedy)?;
        let program = programs::sink(counts.as_raw_fd(), ethertype, frame_bytes as u16);
        let program = bpf::load(&program).map_err(with_remedy)?;
        let link = bpf::attach(&program, index, Attach::Driver).map_err(with_remedy)?;
        Ok(Self { _link: link, counts })
    }

    /// The counts so far.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn arrived(&self) -> Result<Arrived, Refusal> {
        let value = value_of::<SINK_BYTES>(&self.counts)?;
        debug_assert_eq!(value.len(), BUCKETS_AT / 8 + BUCKETS);
        let delays = value[BUCKETS_AT / 8..].into();
        Ok(Arrived { right: value[0], wrong: value[1], delays })
    }
}

/// The simplest possible forwarder.
///
/// It sends each frame from one interface to another, unchanged and without an skb. A dropped
/// forwarder is detached.
#[derive(Debug)]
pub struct Redirect {
    _link: OwnedFd,
}

impl Redirect {
    /// Attaches the forwarder.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn attach(from: &str, to: &str) -> Result<Self, Refusal> {
        let (from, to) = (find(from)?.index, find(to)?.index);
        let program = bpf::load(&programs::redirect(to)).map_err(with_remedy)?;
        let link = bpf::attach(&program, from, Attach::Driver).map_err(with_remedy)?;
        Ok(Self { _link: link })
    }
}

/// Makes a veth receive by polling (NAPI) even without a program, as a NIC does. Enabling GRO has
/// this effect.
///
/// # Errors
/// The kernel's error.
pub fn take_by_polling(interface: &str) -> Result<(), Refusal> {
    // SAFETY: the call takes and returns only numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(at("socket")(errno()));
    }
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    let ioctl_socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut value = EthtoolValue { command: GRO_SET, value: 1 };
    // SAFETY: all fields are numbers or pointers, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the call reads `request`, and what it points to outlives the call.
    let result =
        unsafe { libc::ioctl(ioctl_socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) };
    if result < 0 { Err(at("ETHTOOL_SGRO")(errno())) } else { Ok(()) }
}

/// A packet socket with the options that a simple forwarder would use.
///
/// It receives frames of this ethertype, if one is given, and bypasses the queueing discipline when
/// it sends.
///
/// # Errors
/// The kernel's error.
pub fn packet_socket(interface: &str, receives: Option<u16>) -> Result<OwnedFd, Refusal> {
    let index = find(interface)?.index;
    // SAFETY: the call takes and returns only numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(at("socket(AF_PACKET)")(errno()));
    }
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    for (level, option, value, step) in [
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, PACKET_BUFFER_BYTES, "SO_RCVBUFFORCE"),
        (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, PACKET_BUFFER_BYTES, "SO_SNDBUFFORCE"),
        (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1, "PACKET_QDISC_BYPASS"),
    ] {
        let len = mem::size_of_val(&value) as libc::socklen_t;
        let value = std::ptr::from_ref(&value).cast();
        // SAFETY: `value` points to `len` bytes that outlive the call.
        let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, len) };
        if set < 0 {
            return Err(at(step)(errno()));
        }
    }
    // SAFETY: all fields are numbers, for which zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = receives.unwrap_or_default().to_be();
    address.sll_ifindex = index as i32;
    let len = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address has `len` bytes and outlives the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 { Err(at("bind")(errno())) } else { Ok(socket) }
}
