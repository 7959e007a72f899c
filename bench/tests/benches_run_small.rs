//! Runs every benchmark at its smallest size. Only counts are tested: every lost packet is counted,
//! and no packet arrives changed.

use strowger_bench::{Bench, Failure, Options, rows};

fn small(bench: Bench) -> Vec<strowger_bench::Row> {
    let options = Options { benches: vec![bench], ..Options::small().expect("a core") };
    rows(&options).expect("the benchmark runs")
}

#[test]
fn memory_has_the_time_of_a_step() {
    let rows = small(Bench::Memory);
    assert!(rows[0].ns_per_packet_and_switch.expect("measured").min > 0.0);
}

#[test]
fn unix_sockets_are_measured_with_trains_and_without() {
    for row in small(Bench::Unix) {
        assert_eq!((row.ours, row.peer), ("trains", Some("sendmmsg_32")));
        assert!(row.ratio.expect("measured").min > 0.0);
    }
}

#[test]
fn udp_measures_both_kinds_of_traffic_against_both_peers() {
    let rows = small(Bench::Udp);
    let seen: Vec<_> = rows.iter().map(|row| (row.trains, row.peer.expect("a peer"))).collect();
    let expected = [(true, "mmsg"), (true, "one_by_one"), (false, "mmsg"), (false, "one_by_one")];
    assert_eq!(seen, expected);
    for row in rows {
        assert!(row.ours_rate.is_some() && row.peer_rate.is_some() && row.ratio.is_some());
    }
}

#[test]
fn backends_are_measured_or_the_row_says_why_not() {
    for row in small(Bench::Backends) {
        assert!(row.ratio.is_some() || row.note.is_some());
    }
}

#[test]
fn r3_every_packet_dropped_in_overload_is_counted() {
    for row in small(Bench::Overload) {
        let accounts = row.accounts.expect("the row has accounts");
        assert!(accounts.whole, "{accounts:?}");
    }
}

#[test]
fn sealed_links_are_measured_against_the_cipher_and_against_each_other() {
    let options = Options {
        benches: vec![Bench::Sealed],
        sizes: vec![128],
        ..Options::small().expect("a core")
    };
    let rows = rows(&options).expect("the benchmark runs");
    let seen: Vec<_> = rows.iter().filter(|row| row.ours == "memory").collect();
    let seen: Vec<_> = seen.iter().map(|row| (row.seal, row.peer)).collect();
    let expected = [
        (Some("full"), Some("aead_twice")),
        (Some("header_only"), Some("aead_twice")),
        (Some("header_only"), Some("full")),
    ];
    assert_eq!(seen, expected);
    assert!(rows.iter().all(|row| row.ratio.is_some() || row.note.is_some()));
}

#[cfg(feature = "wireguard")]
#[test]
fn wireguards_relay_as_deployed_and_as_a_library() {
    let options = Options {
        benches: vec![Bench::Sealed],
        sizes: vec![512],
        ..Options::small().expect("a core")
    };
    let rows = rows(&options).expect("the benchmark runs");
    let rows: Vec<_> = rows.iter().filter(|row| row.ours == "mmsg").collect();
    let peers: Vec<_> = rows.iter().filter_map(|row| row.peer).collect();
    let expected = ["boringtun", "boringtun_1_thread", "boringtun_no_tun", "boringtun_no_tun_mmsg"];
    assert_eq!(peers, expected);
    for row in &rows {
        match &row.note {
            Some(why) if row.peer.is_some_and(|peer| !peer.contains("no_tun")) => {
                strowger_testkit::skip_case(row.peer.unwrap_or("a peer"), why);
            }
            note => assert!(row.ratio.is_some(), "{:?}: {note:?}", row.peer),
        }
    }
}

#[test]
fn handshakes_are_measured_on_both_sides_and_in_the_slow_path() {
    let rows = small(Bench::Handshakes);
    let sides: Vec<_> = rows.iter().map(|row| row.ours).collect();
    let expected = ["responder", "initiator", "responder_again", "initiator_again", "slow_path"];
    assert_eq!(sides, expected);
    assert!(rows.iter().all(|row| row.ratio.is_some()));
}

#[test]
fn r9_data_comes_through_a_sealed_relay_under_a_flood_of_handshakes() {
    let rows = rows(&Options {
        benches: vec![Bench::Flood],
        sizes: vec![128],
        ..Options::small().expect("a core")
    });
    let rows = rows.expect("the benchmark runs");
    let peers: Vec<_> = rows.iter().map(|row| row.peer).collect();
    assert_eq!(peers, [Some("no_flood"), Some("elsewhere"), Some("no_flood"), Some("elsewhere")]);
    assert_eq!((rows[2].ours, rows[3].ours), ("punted", "punted"));
    assert!(rows.iter().all(|row| row.ratio.is_some()));
}

/// Ratios of a run this short are meaningless, so the test checks only counts and that every case
/// has a row. The row of a skipped case contains the reason.
#[test]
fn r23_isolation_has_a_row_for_every_case() {
    let cases = [
        "dead_next_hops_same_listener",
        "dead_next_hops_other_listener",
        "dead_next_hops_many",
        "slow_interface",
        "stalled_clients_1",
        "stalled_clients_9",
        "stalled_clients_40",
        "control_flag_data",
        "control_flag_control",
        "polling_order_local",
        "polling_order_other_worker",
        "slot_1_flood",
        "junk_answers_coming_up",
        "junk_answers_running",
        "forged_answers_coming_up",
        "forged_answers_running",
    ];
    let rows = small(Bench::Isolation);
    assert_eq!(rows.len(), cases.len());
    for (row, case) in rows.iter().zip(cases) {
        let Some(isolation) = &row.isolation else {
            let why = row.note.as_deref().expect("a row without figures says why");
            assert!(std::env::var_os("CI").is_none(), "with CI set no case may be skipped: {why}");
            strowger_testkit::skip_case(case, why);
            continue;
        };
        assert_eq!(isolation.case, case);
        assert!(row.ratio.is_some() && isolation.offered > 0.0, "{row}");
        assert!(isolation.offender_sent > 0.0 && isolation.delivered_without.max > 0.0, "{row}");
        assert!(isolation.delivered_with.max <= isolation.offered, "{row}");
    }
}

/// Every frame that reached Strowger is counted, and there is a row for every peer; the row of
/// testpmd says so if testpmd is not installed.
#[test]
fn r3_over_ethernet_every_frame_is_counted_and_all_peers_are_measured() {
    let options = Options { benches: vec![Bench::Xdp], ..Options::small().expect("a core") };
    let rows = match rows(&options) {
        Err(Failure::Refused(why)) => {
            return strowger_testkit::skip(&why);
        }
        rows => rows.expect("the benchmark runs"),
    };
    let of = |name| rows.iter().filter(move |row| row.peer == Some(name));
    for name in ["testpmd", "af_packet", "bridge", "xdp_redirect"] {
        let loads: Vec<_> = of(name).filter(|row| row.receive == Some("same_core")).collect();
        let loads: Vec<_> = loads.iter().map(|row| row.load).collect();
        assert_eq!(loads, [None, Some(0.1), Some(0.8)], "{name}");
    }
    for row in rows.iter().filter(|row| row.peer != Some("testpmd")) {
        assert!(row.ratio.is_some(), "{row}");
        assert!(row.load.is_some() || row.ours_latency.is_none(), "{row}");
    }
    assert!(of("testpmd").all(|row| row.ratio.is_some() || row.note.is_some()));
    for row in &rows {
        let accounts = row.accounts.expect("the row has accounts");
        assert!(accounts.whole, "{accounts:?}");
    }
    // The number of frames depends on the load of the machine.
    assert!(rows.iter().any(|row| row.accounts.is_some_and(|accounts| accounts.at_sink > 0)));
    assert!(rows.iter().any(|row| row.ours_latency.is_some() && row.peer_latency.is_some()));
}

#[test]
fn invalid_options_are_refused() {
    let with = |change: fn(&mut Options)| {
        let mut options = Options { benches: vec![], ..Options::small().expect("a core") };
        change(&mut options);
        rows(&options).map(|rows| rows.len()).map_err(|failure| failure.to_string())
    };
    assert_eq!(with(|_| ()), Ok(0));
    assert!(with(|options| options.pairs = 0).is_err());
    assert!(with(|options| options.sizes = vec![20]).is_err());
    assert!(with(|options| options.sizes = vec![9000]).is_err());
    assert!(with(|options| options.sizes.clear()).is_err());
    assert!(with(|options| options.seconds_per_run = 0.0).is_err());
    assert!(with(|options| options.seconds_per_run = f64::NAN).is_err());
}

#[test]
fn connections_are_measured_in_memory_and_through_relays() {
    let rows = small(Bench::Connections);
    let seen: Vec<_> = rows.iter().map(|row| (row.ours, row.peer)).collect();
    let expected = [
        ("seal_and_open", Some("cipher")),
        ("many", Some("few")),
        ("responder", Some("curves")),
        ("responder_by_peer_id", Some("curves_xx")),
        ("connect", None),
        ("socket_latency", Some("local_port")),
        ("socket_latency_one_thread", Some("local_port")),
        ("ends_with_sockets", Some("cipher")),
        ("through_relay", Some("bare_packets")),
        ("frames_per_send", Some("local_port")),
    ];
    assert_eq!(seen, expected);
    assert!(rows[..4].iter().all(|row| row.ratio.expect("measured").min > 0.0));
    let note = rows[4].note.as_deref().expect("the round trips");
    assert_eq!(note, "data leaves after 1 round trips by PeerId and 1 by static key");
    for row in &rows[5..7] {
        assert!(row.ours_latency.is_some() && row.peer_latency.is_some(), "{row}");
    }
    assert!(rows[7..].iter().all(|row| row.ratio.expect("measured").min > 0.0));
    assert!(rows[8].ratio_busy.is_some());
    for row in &rows[5..] {
        eprintln!("{row}");
    }
}
