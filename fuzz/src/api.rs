//! Properties of the datagrams of the local API: reading is total, and messages and requests cannot
//! be taken for each other.

use bolero::check;
use strowger_gateway::api_message::{FromProgram, PROTOCOLS_MAX, Request, TIMEOUT_MAX, read};

/// Reads any bytes as a datagram, and any text between the parts of a request.
#[test]
fn datagrams_of_programs_read_totally_and_have_one_meaning() {
    check!().with_type::<(Vec<u8>, u8)>().for_each(|(bytes, begin)| {
        // Random bytes are rarely a request.
        let around: [(&[u8], &[u8]); 5] = [
            (b"", b""),
            (b"{\"connect\":{\"peer\":\"b\",\"protocol\":", b"}}"),
            (b"{\"listen\":{\"protocol\":[\"/a/1\",", b"]}}"),
            (b"{\"connect\":{\"peer\":\"b\",\"protocol\":\"/a/1\",\"timeout_s\":", b"}}"),
            (b"\0", b""),
        ];
        let (before, behind) = around[usize::from(begin % 5)];
        let datagram = [before, bytes, behind].concat();
        match read(&datagram) {
            Ok(FromProgram::Message(message)) => {
                assert!(datagram[0] == 0 && message == &datagram[1..]);
            }
            Ok(FromProgram::Request(request)) => {
                assert_eq!(datagram[0], b'{');
                match request {
                    Request::Connect { protocols, timeout, .. } => {
                        assert!((1..=PROTOCOLS_MAX).contains(&protocols.len()));
                        assert!(!timeout.is_zero() && timeout <= TIMEOUT_MAX);
                    }
                    Request::Listen { protocols } => {
                        assert!((1..=PROTOCOLS_MAX).contains(&protocols.len()));
                    }
                    Request::Id | Request::Info => {}
                }
            }
            Err(failed) => {
                assert!(datagram.first() != Some(&0), "any bytes may be a message");
                let json = failed.to_json().to_string();
                assert!(json.len() < 2_000 && json.starts_with("{\"error\":{"));
            }
        }
    });
}
