//! One suite of tests that every backend must pass. Each rule of `Port`'s contract is one test per
//! backend. A new backend needs one line in `backends!` and one function in `backends.rs`.

mod backends;
mod suite;

macro_rules! backends {
    ($($backend:ident)*) => { $(mod $backend {
        use super::{backends, suite};

        fn law(law: impl Fn(&suite::Backend, suite::Joined)) {
            let backend = backends::$backend();
            match (backend.join)() {
                Ok(joined) => law(&backend, joined),
                Err(why) => strowger_testkit::unsupported(&format!("{}: {why}", stringify!($backend))),
            }
        }

        #[test]
        fn delivers_in_order_and_intact() {
            law(|_, joined| suite::delivers_in_order_and_intact(joined));
        }
        #[test]
        fn payload_is_not_copied() {
            law(suite::payload_is_not_copied);
        }
        #[test]
        fn r3_an_overload_is_counted_to_the_last_frame() {
            law(suite::an_overload_is_counted_to_the_last_frame);
        }
        #[test]
        fn admits_and_forgets() {
            law(|_, joined| suite::admits_and_forgets(joined));
        }
        #[test]
        fn an_unknown_mark_is_no_neighbour() {
            law(|_, joined| suite::an_unknown_mark_is_no_neighbour(joined));
        }
        #[test]
        fn an_unknown_sender_is_counted() {
            law(|_, joined| suite::an_unknown_sender_is_counted(joined));
        }
        #[test]
        fn r23_a_burst_of_pure_losses_ends() {
            law(|_, joined| suite::a_burst_of_pure_losses_ends(joined));
        }
        #[test]
        fn a_receive_without_memory_is_counted() {
            law(|_, joined| suite::a_receive_without_memory_is_counted(joined));
        }
        #[test]
        fn empty_and_largest_frames_pass() {
            law(|_, joined| suite::empty_and_largest_frames_pass(joined));
        }
        #[test]
        fn an_empty_pool_recovers() {
            law(|_, joined| suite::an_empty_pool_recovers(joined));
        }
        #[test]
        fn r10_the_far_side_may_end() {
            law(suite::the_far_side_may_end);
        }
        #[test]
        fn arming_wakes() {
            law(|_, joined| suite::arming_wakes(joined));
        }
        #[test]
        fn two_threads_sleep_and_wake_each_other() {
            law(|_, joined| suite::two_threads_sleep_and_wake_each_other(joined));
        }
        #[test]
        fn r13_nothing_is_allocated_after_construction() {
            law(|_, joined| suite::nothing_is_allocated_after_construction(joined));
        }
    })* };
}

backends! {
    memory
    endpoint
    unix
    unix_with_largest_frames
    capture_of_memory
    fault_of_memory_with_no_faults
    udp_mmsg
    udp_io_uring
    xdp_copy
    xdp_generic
    af_packet
}
