//! Every bench at its smallest, so that none rots. No figure decides anything here but those of
//! counting: nothing is lost unseen, nothing comes out wrong.

use strowger_bench::{Failure, Options, What, rows};

fn small(what: What) -> Vec<strowger_bench::Row> {
    let options = Options { what: vec![what], ..Options::small().expect("a core") };
    rows(&options).expect("it measures")
}

#[test]
fn memory_says_what_a_step_takes() {
    let rows = small(What::Memory);
    assert!(rows[0].ns_per_packet_and_switch.expect("measured").min > 0.0);
}

#[test]
fn udp_measures_both_kinds_of_traffic_against_both_peers() {
    let rows = small(What::Udp);
    let seen: Vec<_> = rows.iter().map(|row| (row.trains, row.peer.expect("a peer"))).collect();
    let expected = [(true, "mmsg"), (true, "one_by_one"), (false, "mmsg"), (false, "one_by_one")];
    assert_eq!(seen, expected);
    for row in rows {
        assert!(row.ours_rate.is_some() && row.peer_rate.is_some() && row.ratio.is_some());
    }
}

#[test]
fn backends_are_measured_or_the_refusal_is_said() {
    for row in small(What::Backends) {
        assert!(row.ratio.is_some() || row.note.is_some());
    }
}

#[test]
fn r3_every_packet_that_overload_lets_fall_is_counted() {
    for row in small(What::Overload) {
        let accounts = row.accounts.expect("it keeps accounts");
        assert!(accounts.whole, "{accounts:?}");
    }
}

#[test]
fn sealed_links_are_measured_against_the_cipher_and_against_each_other() {
    let options =
        Options { what: vec![What::Sealed], sizes: vec![128], ..Options::small().expect("a core") };
    let rows = rows(&options).expect("it measures");
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
    let options =
        Options { what: vec![What::Sealed], sizes: vec![512], ..Options::small().expect("a core") };
    let rows = rows(&options).expect("it measures");
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
    let rows = small(What::Handshakes);
    let sides: Vec<_> = rows.iter().map(|row| row.ours).collect();
    let expected = ["responder", "initiator", "responder_again", "initiator_again", "slow_path"];
    assert_eq!(sides, expected);
    assert!(rows.iter().all(|row| row.ratio.is_some()));
}

#[test]
fn r9_data_comes_through_a_sealed_relay_under_a_flood_of_handshakes() {
    let rows = rows(&Options {
        what: vec![What::Flood],
        sizes: vec![128],
        ..Options::small().expect("a core")
    });
    let rows = rows.expect("it measures");
    let peers: Vec<_> = rows.iter().map(|row| row.peer).collect();
    assert_eq!(peers, [Some("calm"), Some("elsewhere"), Some("calm"), Some("elsewhere")]);
    assert_eq!((rows[2].ours, rows[3].ours), ("punted", "punted"));
    assert!(rows.iter().all(|row| row.ratio.is_some()));
}

/// The ratios of a run as short as this decide nothing: a row is there for every case, or says why
/// it was skipped.
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
    let rows = small(What::Isolation);
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

/// Of every frame that reached ours there is a count, and all peers are there; testpmd only where it
/// is installed, and it is said where not.
#[test]
fn r3_over_ethernet_every_frame_is_counted_and_all_peers_are_measured() {
    let options = Options { what: vec![What::Xdp], ..Options::small().expect("a core") };
    let rows = match rows(&options) {
        Err(Failure::Refused(why)) => {
            return strowger_testkit::skip(&why);
        }
        rows => rows.expect("it measures"),
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
        let accounts = row.accounts.expect("it keeps accounts");
        assert!(accounts.whole, "{accounts:?}");
    }
    // How many a run has is a matter of who else uses the machine.
    assert!(rows.iter().any(|row| row.accounts.is_some_and(|accounts| accounts.at_sink > 0)));
    assert!(rows.iter().any(|row| row.ours_latency.is_some() && row.peer_latency.is_some()));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let with = |change: fn(&mut Options)| {
        let mut options = Options { what: vec![], ..Options::small().expect("a core") };
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
