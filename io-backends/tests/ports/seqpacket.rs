//! Tests of sockets that carry messages and descriptors between processes.

use std::{
    io::{IoSlice, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    thread,
};

use strowger_io::unix::seqpacket::{Seqpacket, SeqpacketListener};

use crate::unix::{LONG, Place};

/// Receives a message and a descriptor.
fn receive_with(socket: &Seqpacket) -> (Vec<u8>, OwnedFd) {
    let (mut bytes, mut control) = (vec![0_u8; 256], [0_u64; 8]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a `msghdr` consists of integers and pointers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: all buffers are writable and outlive the call.
    let got = unsafe {
        libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC)
    };
    bytes.truncate(usize::try_from(got).expect("a message"));
    // SAFETY: `header` points to the buffer.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    // SAFETY: the kernel has filled the buffer, which is aligned.
    let first = unsafe { first.as_ref() }.expect("a descriptor");
    assert_eq!((first.cmsg_level, first.cmsg_type), (libc::SOL_SOCKET, libc::SCM_RIGHTS));
    // SAFETY: the header is in the buffer.
    let data = unsafe { libc::CMSG_DATA(first) };
    // SAFETY: the data of such a message are descriptors.
    let fd = unsafe { data.cast::<i32>().read_unaligned() };
    // SAFETY: the kernel has made this descriptor for us.
    (bytes, unsafe { OwnedFd::from_raw_fd(fd) })
}

#[test]
fn messages_keep_their_bounds_and_descriptors_pass() {
    let place = Place::new("seqpacket");
    let listener = SeqpacketListener::bind(&place.0, 0o600).expect("no other listener");
    assert_eq!(std::fs::metadata(&place.0).unwrap().permissions().mode() & 0o777, 0o600);
    let ours = Seqpacket::connect(&place.0).expect("it listens");
    let theirs = listener.accept().expect("a client");
    let mut buffer = [0; 64];
    ours.send(&[IoSlice::new(b"a"), IoSlice::new(b"bc")]).expect("room");
    ours.send(&[IoSlice::new(b"d")]).expect("room");
    assert_eq!(theirs.receive(&mut buffer).unwrap(), 3);
    assert_eq!(&buffer[..3], b"abc");
    assert_eq!(theirs.receive(&mut buffer).unwrap(), 1);

    let (mut end, other) = UnixStream::pair().unwrap();
    theirs.send_with(b"with", other.as_fd()).expect("room");
    drop(other);
    let (message, descriptor) = receive_with(&ours);
    assert_eq!(message, b"with");
    std::io::Write::write_all(&mut UnixStream::from(descriptor), b"through it").unwrap();
    let mut text = String::new();
    end.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through it");

    // A descriptor that is not expected is closed.
    let (mut end, other) = UnixStream::pair().unwrap();
    ours.send_with(b"unexpected", other.as_fd()).expect("room");
    drop(other);
    assert_eq!(theirs.receive(&mut buffer).unwrap(), 10);
    assert_eq!(end.read(&mut buffer).unwrap(), 0, "all copies are closed");

    theirs.set_receive_timeout(Some(std::time::Duration::from_millis(1))).unwrap();
    let error = theirs.receive(&mut buffer).expect_err("nothing comes");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(listener);
    assert!(!place.0.exists());
}

#[test]
fn shutting_down_ends_calls_that_block() {
    let (ours, theirs) = Seqpacket::pair().expect("descriptors");
    theirs.set_receive_timeout(Some(LONG)).unwrap();
    let other = ours.try_clone().expect("a descriptor");
    let blocked = thread::spawn(move || {
        let received = other.receive(&mut [0; 8]);
        // Sends until the other end is shut down.
        let failed = loop {
            if let Err(error) = other.send(&[IoSlice::new(&[0; 1000])]) {
                break error;
            }
        };
        (received, failed)
    });
    theirs.send(&[IoSlice::new(b"go")]).unwrap();
    let mut buffer = [0; 1000];
    assert_eq!(theirs.receive(&mut buffer).unwrap(), 1000);
    ours.shut_down();
    let (received, failed) = blocked.join().unwrap();
    assert_eq!(received.unwrap(), 2);
    assert_eq!(failed.kind(), std::io::ErrorKind::BrokenPipe);
}
