//! Tests of paths, with a peer that answers after a delay.

use std::collections::BTreeMap;

use strowger_crypto::SeededEntropy;
use strowger_routing::Outcome;
use strowger_testkit::Rng;
use strowger_wire::{Label, control::Reason};

use super::*;
use crate::limits::{LENGTH_MIN, SILENCE_MIN, TOKEN_TIME};

const fn ms(milliseconds: u64) -> Nanos {
    Nanos::from_millis(milliseconds)
}

fn label(number: u64) -> AnyLabel {
    AnyLabel::W64(Label::new(0x100_0000 + (number << 8)))
}

fn new_label(number: u64) -> NewLabel {
    NewLabel { label: label(number), hops_left: 64, packet_bytes_max: None }
}

fn lane(number: u8) -> Lane {
    Lane::new(number).expect("below 16")
}

fn packet(number: u64, content: Content) -> OpenedPacket {
    let label = Some(label(number));
    OpenedPacket { lane: lane(0), label, bytes: 60, is_newest: true, content }
}

/// One end, and a peer that answers challenges along the labels that work.
struct End {
    paths: PathSet,
    entropy: SeededEntropy,
    now: Nanos,
    /// The delay of the answers to challenges along a label; other labels lead nowhere.
    delays: BTreeMap<u64, Nanos>,
    answers: Vec<(Nanos, PathToken)>,
    /// Bytes of the longest challenge that is answered.
    takes: usize,
    /// All actions, with their times.
    log: Vec<(Nanos, PathAction)>,
}

impl End {
    fn new(lanes: u8) -> End {
        End {
            paths: PathSet::new(Nanos::ZERO, 1_428, lanes),
            entropy: SeededEntropy::new(1),
            now: Nanos::from_secs(100),
            delays: BTreeMap::new(),
            answers: Vec::new(),
            takes: usize::MAX,
            log: Vec::new(),
        }
    }

    /// An end that has finished a handshake along label 1 after 40 ms and has `standby` more
    /// labels. Answers along label n take 40 n ms.
    fn connected(is_initiator: bool, standby: u64, lanes: u8) -> End {
        let mut end = End::new(lanes);
        for number in 1..=1 + standby {
            end.works(number, 40 * number);
            if is_initiator {
                let new = new_label(number);
                end.paths.add(end.now, &new);
            }
        }
        end.paths.set_can_seal(true);
        end.paths.handshake_done(end.now, label(1), is_initiator, Some(ms(40)));
        end.run(5_000);
        end.log.clear();
        end
    }

    fn works(&mut self, number: u64, delay_ms: u64) {
        self.delays.insert(number, ms(delay_ms));
    }

    fn fails(&mut self, number: u64) {
        self.delays.remove(&number);
    }

    fn poll(&mut self) {
        while let Some(action) = self.paths.poll(self.now, &mut self.entropy) {
            self.log.push((self.now, action));
            if let PathAction::Challenge { along, token, packet_bytes } = action
                && packet_bytes <= self.takes
            {
                let delay = self.delays.iter().find(|(number, _)| label(**number) == along.label);
                if let Some((_, delay)) = delay {
                    self.answers.push((self.now.plus(*delay), token));
                }
            }
        }
    }

    /// Passes time, from one timeout to the next.
    fn run(&mut self, milliseconds: u64) {
        let end = self.now.plus(ms(milliseconds));
        let mut steps_now = 0;
        loop {
            let before = self.now;
            self.poll();
            let answer = self.answers.iter().map(|(at, _)| *at).min();
            let next = [self.paths.next_timeout(), answer].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            steps_now = if self.now > before { 0 } else { steps_now + 1 };
            assert!(steps_now < 100, "time stands still");
            let due = self.answers.iter().position(|(at, _)| *at <= self.now);
            if let Some(due) = due {
                let (_, token) = self.answers.swap_remove(due);
                self.respond(token);
            }
        }
        self.now = end;
        self.poll();
    }

    fn respond(&mut self, token: PathToken) {
        let opened = OpenedPacket { label: None, ..packet(0, Content::Response) };
        self.paths.note_opened(self.now, &opened);
        self.paths.handle_response(self.now, &token.0).expect("within the budget");
    }

    fn send(&mut self) -> Result<AnyLabel, PathRefused> {
        self.paths.take(self.now, 200, Traffic::Message).map(|along| along.label)
    }

    /// Sends items: an answer is due, and no search for the length starts.
    fn ask(&mut self) {
        self.paths.take(self.now, 200, Traffic::Items).expect("a path");
    }

    fn open(&mut self, number: u64) {
        self.paths.note_opened(self.now, &packet(number, Content::Message));
    }

    fn active(&self) -> AnyLabel {
        self.paths.active().expect("a path").label
    }

    fn state(&self, number: u64) -> Option<PathState> {
        let info = self.paths.info();
        info.iter().find(|info| info.label == label(number)).map(|info| info.state)
    }

    /// The times of challenges along a label, in milliseconds, and their tokens and lengths.
    fn challenges(&self, number: u64) -> Vec<(u64, PathToken, usize)> {
        let challenge = |(at, action): &(Nanos, PathAction)| match action {
            PathAction::Challenge { along, token, packet_bytes }
                if along.label == label(number) =>
            {
                Some((at.0 / 1_000_000, *token, *packet_bytes))
            }
            _ => None,
        };
        self.log.iter().filter_map(challenge).collect()
    }

    fn has(&self, action: PathAction) -> bool {
        self.log.iter().any(|(_, logged)| *logged == action)
    }
}

fn dropped(number: u64, reason: Reason) -> Hint {
    let AnyLabel::W64(label) = label(number) else { panic!("64 bits") };
    let label = AnyLabel::W64(Label::new(label.register() >> 4));
    Hint { kind: HintKind::Dropped(reason), label, shift: 5 }
}

/// wire.md: W6-177.
#[test]
fn the_label_of_the_handshake_is_validated_and_active_at_once() {
    let mut end = End::new(1);
    end.paths.add(end.now, &new_label(1));
    assert_eq!(end.send(), Err(PathRefused::NoPath));
    assert_eq!(end.paths.labels()[0].label, label(1));
    end.poll();
    assert!(end.log.is_empty() && end.paths.next_timeout().is_none(), "nothing without keys");
    end.paths.set_can_seal(true);
    end.paths.handshake_done(end.now, label(1), true, Some(ms(40)));
    assert_eq!(end.send(), Ok(label(1)));
    assert!(end.paths.is_validated() && end.paths.rtt() == Some(ms(40)));
    end.poll();
    assert!(end.has(PathAction::Changed { label: label(1), rtt: Some(ms(40)) }));
    let item =
        |(_, action): &(Nanos, PathAction)| matches!(action, PathAction::SendPathItem { .. });
    assert!(!end.log.iter().any(item), "nothing has changed for the peer");
}

/// wire.md: W6-176.
#[test]
fn other_labels_are_challenged_and_stand_by() {
    let mut end = End::new(1);
    for number in 1..=3 {
        end.paths.add(end.now, &new_label(number));
    }
    end.works(2, 80);
    end.paths.set_can_seal(true);
    end.paths.handshake_done(end.now, label(1), true, Some(ms(40)));
    end.run(10_000);
    assert_eq!(end.state(2), Some(PathState::Validated));
    assert_eq!(end.state(3), Some(PathState::Abandoned));
    assert_eq!((end.active(), end.state(1)), (label(1), Some(PathState::Validated)));
    let failed = Outcome::Failed(RouteFailure::Silence);
    assert!(end.has(PathAction::Feedback { label: label(3), outcome: failed }));
    let validated = Outcome::Validated { rtt: ms(80), mtu: None };
    assert!(end.has(PathAction::Feedback { label: label(2), outcome: validated }));
    assert!(end.has(PathAction::AskRouting));
}

/// The label was never validated, so its challenges have 32 bytes and a second between them.
///
/// wire.md: W6-176.
#[test]
fn a_label_by_which_nothing_came_gets_three_short_challenges_a_second_apart() {
    let mut end = End::connected(true, 0, 1);
    end.paths.add(end.now, &new_label(9));
    let start = end.now.0 / 1_000_000;
    end.run(10_000);
    let challenges = end.challenges(9);
    let times: Vec<u64> = challenges.iter().map(|(at, _, _)| at - start).collect();
    assert_eq!(times, [0, 1_000, 2_000]);
    let token = challenges[0].1;
    assert!(challenges.iter().all(|challenge| (challenge.1, challenge.2) == (token, 32)));
    assert_eq!(end.state(9), Some(PathState::Abandoned));
}

/// wire.md: W6-176.
#[test]
fn a_validated_path_is_challenged_three_times_one_round_trip_and_50_ms_apart() {
    let mut end = End::connected(true, 0, 1);
    end.fails(1);
    end.ask();
    let start = end.now.0 / 1_000_000;
    end.run(10_000);
    let challenges = end.challenges(1);
    let times: Vec<u64> = challenges.iter().map(|(at, _, _)| at - start).collect();
    assert_eq!(times, [150, 240, 330], "40 ms + 50 ms after the silence of 150 ms");
    let token = challenges[0].1;
    assert!(challenges.iter().all(|challenge| (challenge.1, challenge.2) == (token, 64)));
}

#[test]
fn an_idle_connection_sends_nothing() {
    for is_initiator in [true, false] {
        let mut end = End::connected(is_initiator, 2, 2);
        end.run(3_600_000);
        assert!(end.log.is_empty(), "{:?}", end.log);
        assert_eq!(end.paths.next_timeout(), None);
    }
}

#[test]
fn one_message_without_an_answer_costs_one_challenge() {
    let mut end = End::connected(true, 0, 1);
    end.paths.take(end.now, 200, Traffic::Items).expect("a path");
    end.run(3_600_000);
    assert_eq!(end.challenges(1).len(), 1);
    assert_eq!(end.paths.next_timeout(), None);
    end.log.clear();
    end.paths.take(end.now, 200, Traffic::Unanswered).expect("a path");
    end.run(3_600_000);
    assert!(end.log.is_empty(), "no answer to this is due: {:?}", end.log);
}

/// wire.md: W6-45.
#[test]
fn after_a_silence_the_first_path_that_answers_is_active() {
    let mut end = End::connected(true, 2, 1);
    end.fails(1);
    let start = end.now;
    end.ask();
    end.run(149);
    assert!(end.log.is_empty());
    end.run(300);
    for number in 1..=3 {
        let at = end.challenges(number)[0].0;
        assert_eq!(at, start.plus(SILENCE_MIN).0 / 1_000_000, "all of them together");
    }
    assert_eq!(end.active(), label(2), "80 ms are less than 120 ms");
    assert_eq!(end.send(), Ok(label(2)));
    end.run(5_000);
    assert_eq!(end.active(), label(2));
    assert_eq!(end.state(1), Some(PathState::Failing), "{:?}", end.log);
}

/// T14: after a silence another path is used within 1.5 s, for round trips up to 300 ms.
#[test]
fn a_failover_after_a_silence_takes_at_most_one_and_a_half_seconds() {
    for rtt in [1, 20, 100, 200, 300] {
        let mut end = End::connected(true, 1, 1);
        end.works(1, rtt);
        end.works(2, rtt);
        for _ in 0..60 {
            end.paths.take(end.now, 200, Traffic::Items).expect("a path");
            end.run(2_000);
        }
        let first = end.active();
        let number = if first == label(1) { 1 } else { 2 };
        end.fails(number);
        end.send().expect("a path");
        end.run(1_500);
        assert_ne!(end.active(), first, "{rtt} ms");
    }
}

/// wire.md: W6-45.
#[test]
fn one_way_traffic_waits_longer() {
    let mut end = End::connected(true, 0, 1);
    end.run(11_000);
    let start = end.now.0 / 1_000_000;
    end.ask();
    end.run(999);
    assert!(end.log.is_empty());
    end.run(1);
    assert_eq!(end.challenges(1)[0].0, start + 1_000);
}

/// wire.md: W6-172, W6-179.
#[test]
fn an_error_moves_messages_to_a_standby_path_at_once() {
    let mut end = End::connected(true, 1, 2);
    end.fails(1);
    assert_eq!(end.send(), Ok(label(1)));
    let effect = end.paths.handle_hint(end.now, &dropped(1, Reason::SLOT_GONE));
    assert_eq!(effect, HintEffect::About(label(1)));
    assert_eq!(end.send(), Ok(label(2)), "with the message at hand");
    assert_eq!(end.state(1), Some(PathState::Failing));
    end.run(5_000);
    let failed = Outcome::Failed(RouteFailure::Error(Reason::SLOT_GONE));
    assert!(end.has(PathAction::Feedback { label: label(1), outcome: failed }));
    assert!(end.has(PathAction::AskRouting));
    assert_eq!(end.challenges(1).len(), 3);
    assert_eq!(end.state(1), Some(PathState::Abandoned));
    // The standby path has another lane, which a `path` item states.
    let item =
        PathAction::SendPathItem { active: lane(1), former: Some((lane(0), PathUse::Abandoned)) };
    let times: Vec<u64> = end
        .log
        .iter()
        .filter(|(_, action)| *action == item)
        .map(|(at, _)| at.since(end.log[0].0).0 / 1_000_000)
        .collect();
    assert_eq!(times, [0, 250, 750]);
}

#[test]
fn a_forged_error_diverts_for_one_round_trip_if_a_label_was_preferred() {
    let mut end = End::connected(true, 1, 1);
    end.paths.prefer(end.now, &new_label(1));
    end.send().expect("a path");
    end.paths.handle_hint(end.now, &dropped(1, Reason::LINK_DOWN));
    assert_eq!(end.active(), label(2));
    end.run(41);
    assert_eq!((end.active(), end.state(1)), (label(1), Some(PathState::Validated)));
}

/// wire.md: W6-184.
#[test]
fn without_a_standby_path_messages_go_on_along_a_failing_one() {
    let mut end = End::connected(true, 0, 1);
    end.send().expect("a path");
    end.paths.handle_hint(end.now, &dropped(1, Reason::EMPTY_SLOT));
    assert_eq!((end.send(), end.state(1)), (Ok(label(1)), Some(PathState::Failing)));
    assert!(!end.paths.is_validated(), "no pass-through messages");
    end.run(60);
    assert_eq!(end.state(1), Some(PathState::Validated), "it answered");
    assert!(!end.has(PathAction::Gone));
}

/// wire.md: W6-186.
#[test]
fn a_peer_without_a_path_that_answers_is_gone_and_comes_back() {
    let mut end = End::connected(true, 1, 1);
    end.fails(1);
    end.fails(2);
    end.send().expect("a path");
    end.run(3_000);
    assert!(end.has(PathAction::Gone) && end.paths.is_gone() && !end.paths.is_usable());
    assert_eq!(end.send(), Err(PathRefused::NoPath), "messages wait");
    assert_eq!(end.state(1), Some(PathState::Failing));
    assert_eq!(end.paths.labels().len(), 2, "handshakes may try them");
    let gone = end.log.iter().filter(|(_, action)| *action == PathAction::Gone).count();
    assert_eq!(gone, 1);
    end.log.clear();
    end.run(60_000);
    assert!(end.log.is_empty(), "nothing more by itself: {:?}", end.log);
    // The first path works again, and the peer sends.
    end.works(1, 40);
    end.open(1);
    assert_eq!(end.send(), Ok(label(1)));
    end.run(1_000);
    assert_eq!(end.state(1), Some(PathState::Validated));
    assert!(!end.paths.is_gone());
}

/// wire.md: W6-186.
#[test]
fn a_challenge_of_the_active_label_ends_the_absence_of_the_peer() {
    let mut end = End::connected(true, 0, 1);
    end.fails(1);
    end.send().expect("a path");
    end.run(3_000);
    assert!(end.paths.is_gone());
    end.works(1, 40);
    end.paths.challenge_active(end.now);
    end.run(100);
    assert!(!end.paths.is_gone() && end.paths.is_validated());
}

/// wire.md: W6-186.
#[test]
fn new_keys_end_the_absence_of_the_peer() {
    let mut end = End::connected(true, 0, 1);
    end.fails(1);
    end.send().expect("a path");
    end.run(3_000);
    end.paths.handshake_done(end.now, label(1), true, Some(ms(30)));
    assert!(end.paths.is_validated() && end.send() == Ok(label(1)));
}

/// wire.md: W6-41, W6-180.
#[test]
fn a_learnt_label_never_displaces_a_chosen_one_that_works() {
    let mut end = End::connected(true, 0, 1);
    end.works(7, 1);
    end.open(7);
    let item = PathUse::Active;
    end.paths.handle_path_item(end.now, lane(0), Some(label(7)), lane(0), item);
    end.run(5_000);
    assert_eq!(end.state(7), Some(PathState::Validated));
    assert_eq!(end.active(), label(1));
    // The learnt label is used when the chosen one fails. Then the chosen one works again.
    end.send().expect("a path");
    end.paths.handle_hint(end.now, &dropped(1, Reason::U_TURN));
    assert_eq!(end.active(), label(7));
    end.run(100);
    assert_eq!(end.active(), label(1));
}

/// wire.md: W6-180.
#[test]
fn a_responder_keeps_its_learnt_label_unless_it_fails_or_the_peer_says_so() {
    let mut end = End::connected(false, 0, 1);
    end.works(7, 20);
    end.open(7);
    end.run(5_000);
    assert_eq!((end.active(), end.state(7)), (label(1), Some(PathState::Validated)));
    end.paths.handle_path_item(end.now, lane(0), Some(label(7)), lane(1), PathUse::Active);
    assert_eq!(end.active(), label(1), "the item is about another lane");
    end.paths.handle_path_item(end.now, lane(0), Some(label(7)), lane(0), PathUse::Standby);
    assert_eq!(end.active(), label(1));
    end.paths.handle_path_item(end.now, lane(0), Some(label(7)), lane(0), PathUse::Active);
    assert_eq!(end.active(), label(7));
    // The item comes before the label is validated.
    end.works(8, 20);
    end.open(8);
    end.paths.handle_path_item(end.now, lane(0), Some(label(8)), lane(0), PathUse::Active);
    assert_eq!(end.active(), label(7));
    end.run(100);
    assert_eq!(end.active(), label(8));
}

/// wire.md: W6-180.
#[test]
fn an_abandoned_lane_of_the_peer_fails_the_labels_that_were_learnt_on_it() {
    let mut end = End::connected(false, 0, 1);
    end.open(1);
    end.works(7, 20);
    let newer = OpenedPacket { lane: lane(1), ..packet(7, Content::Message) };
    end.paths.note_opened(end.now, &newer);
    end.run(5_000);
    assert_eq!(end.active(), label(1));
    end.fails(1);
    end.paths.handle_path_item(end.now, lane(1), Some(label(7)), lane(0), PathUse::Abandoned);
    assert_eq!((end.active(), end.state(1)), (label(7), Some(PathState::Failing)));
}

/// wire.md: W6-173.
#[test]
fn only_packets_with_a_new_counter_teach_a_label_and_one_in_a_second() {
    let mut end = End::connected(false, 0, 1);
    let old = OpenedPacket { is_newest: false, ..packet(7, Content::Message) };
    end.paths.note_opened(end.now, &old);
    end.paths.note_opened(end.now, &packet(7, Content::Response));
    assert_eq!(end.state(7), None);
    end.paths.note_opened(end.now, &packet(8, Content::Challenge));
    end.open(7);
    assert_eq!((end.state(7), end.state(8)), (None, Some(PathState::Validating)));
    end.run(1_000);
    end.open(7);
    assert_eq!(end.state(7), Some(PathState::Validating));
}

/// wire.md: W6-178.
#[test]
fn an_operators_label_becomes_active_when_it_is_validated() {
    let mut end = End::connected(true, 1, 1);
    end.works(5, 100);
    end.paths.prefer(end.now, &new_label(5));
    assert_eq!(end.send(), Ok(label(1)), "nothing waits");
    end.run(99);
    assert_eq!(end.send(), Ok(label(1)));
    end.run(1);
    assert_eq!(end.send(), Ok(label(5)));
    assert_eq!(end.state(1), Some(PathState::Validated), "it stands by");
    end.paths.prefer(end.now, &new_label(2));
    assert_eq!(end.active(), label(2), "it was validated before");
    end.paths.prefer(end.now, &new_label(6));
    end.run(20_000);
    assert_eq!((end.active(), end.state(6)), (label(2), Some(PathState::Abandoned)));
}

/// wire.md: W6-135.
#[test]
fn a_raced_handshake_that_came_back_another_way_is_settled_by_challenges() {
    for (works, winner) in [(Some(2), 2), (None, 9)] {
        let mut end = End::new(1);
        end.paths.add(end.now, &new_label(1));
        end.paths.add(end.now, &new_label(2));
        end.works(9, 10);
        if let Some(number) = works {
            end.works(number, 50);
        }
        end.paths.set_can_seal(true);
        end.paths.handshake_unclear(end.now, label(9), 238, Some(ms(40)));
        assert_eq!(end.send().map(|_| end.active()), Ok(label(9)), "within what came by it");
        assert_eq!(end.send(), Err(PathRefused::NoCredit));
        end.run(10_000);
        assert_eq!(end.active(), label(winner), "{:?}", end.log);
    }
}

/// wire.md: W6-140.
#[test]
fn a_restart_of_the_peer_leaves_the_label_of_the_handshake_validated() {
    let mut end = End::connected(true, 1, 1);
    end.works(5, 10);
    end.paths.restart(end.now, label(5));
    end.paths.handshake_done(end.now, label(5), true, Some(ms(10)));
    assert_eq!(
        (end.state(1), end.state(2)),
        (Some(PathState::Validating), Some(PathState::Validating))
    );
    assert_eq!((end.active(), end.send()), (label(5), Ok(label(5))));
    end.run(5_000);
    assert_eq!(end.state(1), Some(PathState::Validated));
}

/// wire.md: W6-175.
#[test]
fn a_response_has_an_effect_for_five_seconds_and_only_with_its_token() {
    let mut end = End::connected(true, 0, 1);
    end.paths.add(end.now, &new_label(9));
    end.poll();
    let (_, token, _) = end.challenges(9)[0];
    end.respond(PathToken([7; 8]));
    assert_eq!(end.state(9), Some(PathState::Validating));
    end.run(2_000 + TOKEN_TIME.0 / 1_000_000 + 1);
    end.respond(token);
    assert_eq!(end.state(9), Some(PathState::Abandoned), "too late");
    end.paths.add(end.now, &new_label(9));
    end.poll();
    let (_, token, _) = *end.challenges(9).last().expect("a challenge");
    let short = &token.0[..7];
    end.paths.handle_response(end.now, short).expect("within the budget");
    assert_eq!(end.state(9), Some(PathState::Validating));
    end.run(4_000);
    end.respond(token);
    assert_eq!(end.state(9), Some(PathState::Validated), "4 s after the first copy");
}

#[test]
fn a_late_answer_of_an_abandoned_label_validates_it() {
    let mut end = End::connected(true, 0, 1);
    end.paths.add(end.now, &new_label(9));
    end.run(3_500);
    assert_eq!(end.state(9), Some(PathState::Abandoned));
    let (_, token, _) = end.challenges(9)[0];
    end.respond(token);
    assert_eq!(end.state(9), Some(PathState::Validated));
}

/// wire.md: W6-40.
#[test]
fn eight_labels_are_kept_and_chosen_ones_before_learnt_ones() {
    let mut end = End::connected(false, 0, 1);
    for number in 10..20 {
        end.open(number);
        end.run(1_000);
    }
    assert_eq!(end.paths.info().len(), 8);
    assert_eq!(end.paths.info()[0].label, label(1), "the active one is never forgotten");
    for number in 20..40 {
        end.paths.add(end.now, &new_label(number));
    }
    assert_eq!(end.paths.info().len(), 8);
    assert_eq!(end.active(), label(1));
    let before = end.paths.info();
    end.run(100);
    end.open(50);
    let after = end.paths.info();
    assert!(before.iter().zip(&after).all(|(before, after)| before.label == after.label));
}

/// An attacker on the path can make an end learn labels, but not drop those of routing.
///
/// wire.md: W6-40.
#[test]
fn learnt_labels_do_not_displace_chosen_ones() {
    let mut end = End::connected(true, 6, 1);
    for number in 100..200 {
        end.open(number);
        end.run(1_000);
    }
    for number in 1..=7 {
        assert_eq!(end.state(number), Some(PathState::Validated), "label {number}");
    }
}

/// The checks of W5-65 to W5-68 (wire.md 5.3) on labels.
#[test]
fn an_error_is_about_a_label_only_if_its_forward_part_fits() {
    let sent = AnyLabel::W64(Label::new(0x1_2345));
    let at = |bits: u64, shift| Hint {
        kind: HintKind::Congestion,
        label: AnyLabel::W64(Label::new(bits)),
        shift,
    };
    assert!(at(0x1_2345, 1).is_about(&sent));
    assert!(at(0x8000_0000_0001_2345, 1).is_about(&sent), "the end marker of the return path");
    assert!(at(0xf800_0000_0000_1234, 5).is_about(&sent));
    assert!(at(0x0000_0000_0000_0001, 17).is_about(&sent));
    for other in [
        at(0x1_2345, 0),
        at(0x1_2345, 2),
        at(0x1_2344, 1),
        at(0x1_1234, 5),
        at(0x0000_0000_0000_1235, 5),
        at(0x0000_0000_0000_0000, 18),
        at(0x1_2345, 64),
        at(0x1_2345, 255),
    ] {
        assert!(!other.is_about(&sent), "{other:?}");
    }
    let wide = AnyLabel::W128(Label::new(0x1_2345_u128));
    assert!(!at(0x1_2345, 1).is_about(&wide), "another width");
    let kind = HintKind::Congestion;
    assert!(Hint { kind, label: wide, shift: 1 }.is_about(&wide));
}

/// wire.md: W6-183.
#[test]
fn errors_count_only_about_recent_packets_and_twenty_a_second() {
    let mut end = End::connected(true, 1, 1);
    let moved = Hint { kind: HintKind::SlotMoved, ..dropped(1, Reason::SLOT_GONE) };
    end.run(10_000);
    assert_eq!(end.paths.handle_hint(end.now, &moved), HintEffect::Unsolicited, "nothing was sent");
    end.send().expect("a path");
    for _ in 0..20 {
        assert_eq!(end.paths.handle_hint(end.now, &moved), HintEffect::About(label(1)));
    }
    assert_eq!(end.paths.handle_hint(end.now, &moved), HintEffect::OverBudget);
    assert_eq!(end.state(1), Some(PathState::Validated), "the path stays as it is");
    let other = dropped(3, Reason::SLOT_GONE);
    assert_eq!(end.paths.handle_hint(end.now, &other), HintEffect::Unsolicited);
}

/// wire.md: W6-46, W6-181.
#[test]
fn the_length_is_searched_only_while_messages_are_sent() {
    let mut end = End::connected(true, 0, 1);
    assert_eq!(end.paths.packet_bytes_max(), 1_192);
    end.send().expect("a path");
    end.open(1);
    end.run(1_000);
    let lengths: Vec<usize> = end.challenges(1).iter().map(|challenge| challenge.2).collect();
    assert_eq!(lengths, [1_412], "the longest of the port first");
    assert!(end.has(PathAction::LengthChanged { packet_bytes_max: 1_412 }));
    assert_eq!(end.paths.packet_bytes_max(), 1_412);
    let refused = end.paths.take(end.now, 1_413, Traffic::Message).map(|_| ());
    assert_eq!(refused, Err(PathRefused::TooLong { packet_bytes_max: 1_412 }));
    end.paths.set_peer_mtu(1_000);
    assert_eq!(end.paths.packet_bytes_max(), 1_000);
    assert_eq!(end.paths.next_timeout(), Some(Nanos::ZERO), "the change is reported");
}

/// The search stops some seconds after the last message, and continues with the next message.
#[test]
fn a_search_that_is_not_finished_waits_for_messages() {
    let mut end = End::connected(true, 0, 1);
    end.takes = 1_301;
    end.send().expect("a path");
    end.run(60_000);
    let last = end.log.last().expect("a search").0;
    assert!(last <= end.log[0].0.plus(Nanos::from_secs(5)), "{last:?}");
    assert_eq!(end.paths.next_timeout(), None);
    for _ in 0..60 {
        end.send().expect("a path");
        end.run(1_000);
    }
    assert_eq!(end.paths.packet_bytes_max(), 1_301);
}

#[test]
fn a_ping_without_a_path_waits() {
    let mut end = End::connected(true, 0, 1);
    end.paths.ping(1, 0).expect("a path");
    end.paths.active = None;
    assert_eq!(end.paths.next_timeout(), None);
}

/// wire.md: W6-183.
#[test]
fn too_big_limits_the_length_and_never_below_a_handshake() {
    let mut end = End::connected(true, 0, 1);
    end.send().expect("a path");
    let too_big = |packet_bytes_max| Hint {
        kind: HintKind::TooBig { packet_bytes_max },
        ..dropped(1, Reason::TOO_BIG)
    };
    end.paths.handle_hint(end.now, &too_big(1_100));
    assert_eq!((end.paths.packet_bytes_max(), end.state(1)), (1_084, Some(PathState::Validated)));
    end.paths.handle_hint(end.now, &too_big(3));
    assert_eq!(end.paths.packet_bytes_max(), LENGTH_MIN);
}

#[test]
fn a_ping_is_answered_or_lost() {
    let mut end = End::connected(true, 0, 1);
    assert_eq!(end.paths.ping(1, 100), Ok(()));
    // The longest packet is 1,412 bytes, 32 of them without padding.
    assert_eq!(end.paths.ping(2, 1_381), Err(PingRefused::TooLong));
    end.run(100);
    assert_eq!(end.challenges(1)[0].2, 132);
    assert!(end.has(PathAction::Pong { id: 1, rtt: ms(40) }));
    assert!(end.paths.packet_bytes_max() < 1_412, "no search: no message was sent");
    assert_eq!(end.paths.ping(3, 1_380), Ok(()));
    end.run(100);
    assert!(end.has(PathAction::Pong { id: 3, rtt: ms(40) }));
    end.fails(1);
    for id in 10..18 {
        assert_eq!(end.paths.ping(id, 0), Ok(()));
    }
    assert_eq!(end.paths.ping(18, 0), Err(PingRefused::TooMany));
    end.run(5_001);
    assert!((10..18).all(|id| end.has(PathAction::PingLost { id })));
    assert_eq!(End::new(1).paths.ping(1, 0), Err(PingRefused::NoPath));
}

#[test]
fn challenges_of_the_peer_are_answered_within_what_came_and_160_a_second() {
    let mut end = End::connected(false, 0, 1);
    let body = [7; 24];
    assert_eq!(end.paths.handle_challenge(end.now, &body), Ok(Some(PathToken([7; 8]))));
    assert_eq!(end.paths.handle_challenge(end.now, &body[..7]), Ok(None));
    let answers = |end: &mut End, number, cause_bytes| -> Vec<AnyLabel> {
        let answers = end.paths.take_answer(end.now, label(number), cause_bytes, 48);
        answers.iter().map(|along| along.label).collect()
    };
    // A copy of the challenge with another return path may have come first.
    assert_eq!(answers(&mut end, 70, 48), [label(70), label(1)]);
    assert_eq!(answers(&mut end, 70, 47), [label(1)]);
    assert_eq!(answers(&mut end, 1, 0), [label(1)], "it is validated");
    let mut handled = 0;
    for _ in 0..1_000 {
        handled += usize::from(end.paths.handle_challenge(end.now, &body).is_ok());
    }
    assert_eq!(handled, 14, "16 at once");
}

#[test]
fn without_random_bytes_nothing_is_challenged_and_nothing_breaks() {
    struct Empty;
    impl Entropy for Empty {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), strowger_crypto::EntropyFailed> {
            Err(strowger_crypto::EntropyFailed)
        }
    }
    let mut end = End::connected(true, 1, 1);
    end.send().expect("a path");
    let later = end.now.plus(Nanos::from_secs(2));
    assert_eq!(end.paths.poll(later, &mut Empty), None);
    assert!(end.paths.next_timeout().is_some_and(|at| at > later), "it is tried again");
}

/// R17: along a label that is not validated, this end sends at most as many bytes as came by it,
/// plus one short challenge a second. The states and the active path stay consistent.
///
/// wire.md: W6-42.
#[test]
fn r17_a_label_that_is_not_validated_gets_no_more_than_came_by_it() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut end = End::new(1 + rng.below(2) as u8);
        let mut ledger = BTreeMap::<u64, (usize, usize, usize, Nanos)>::new();
        let (mut tokens, mut logged) = (Vec::<PathToken>::new(), 0);
        end.paths.set_can_seal(true);
        for _ in 0..400 {
            let number = rng.below(14) as u64;
            // For each label: bytes received, bytes sent, short challenges beyond the credit, and
            // the time of the first use.
            let start = end.now;
            let of = |ledger: &mut BTreeMap<u64, (usize, usize, usize, Nanos)>, number| {
                *ledger.entry(number).or_insert((0, 0, 0, start))
            };
            match rng.below(16) {
                0 => end.paths.add(end.now, &new_label(number)),
                1 => end.paths.prefer(end.now, &new_label(number)),
                2..=5 => {
                    let contents = [Content::Message, Content::Confirmation, Content::Challenge];
                    let mut packet = packet(number, contents[rng.below(3)]);
                    packet.bytes = 40 + rng.below(300);
                    packet.is_newest = !rng.one_in(4);
                    packet.lane = lane(rng.below(2) as u8);
                    let entry = of(&mut ledger, number);
                    ledger.insert(number, (entry.0 + packet.bytes, entry.1, entry.2, entry.3));
                    end.paths.note_opened(end.now, &packet);
                    if rng.one_in(2) {
                        let bytes = 30 + rng.below(40);
                        let along =
                            end.paths.take_answer(end.now, label(number), packet.bytes, bytes);
                        if along.iter().any(|along| along.label == label(number)) {
                            let entry = of(&mut ledger, number);
                            ledger.insert(number, (entry.0, entry.1 + bytes, entry.2, entry.3));
                        }
                    }
                }
                6..=9 => {
                    let bytes = 24 + rng.below(400);
                    let sent = end.paths.take(end.now, bytes, Traffic::Message);
                    if let Ok(along) = sent {
                        let number = (0..14).find(|number| label(*number) == along.label);
                        let number = number.expect("a known label");
                        let entry = of(&mut ledger, number);
                        ledger.insert(number, (entry.0, entry.1 + 16 + bytes, entry.2, entry.3));
                    }
                }
                10 if !tokens.is_empty() => {
                    let token = tokens[rng.below(tokens.len())];
                    let _ = end.paths.handle_response(end.now, &token.0);
                }
                11 => {
                    end.paths.handle_hint(end.now, &dropped(number, Reason::LINK_DOWN));
                }
                12 => {
                    let uses = [PathUse::Active, PathUse::Standby, PathUse::Abandoned];
                    let (lane, used) = (lane(rng.below(2) as u8), uses[rng.below(3)]);
                    end.paths.handle_path_item(end.now, lane, Some(label(number)), lane, used);
                }
                13 if rng.one_in(8) => {
                    end.paths.handshake_done(end.now, label(number), rng.one_in(2), None);
                }
                14 if rng.one_in(8) => end.paths.restart(end.now, label(number)),
                _ => end.now = end.now.plus(ms(rng.below(400) as u64)),
            }
            end.poll();
            for (at, action) in end.log.drain(..) {
                logged += 1;
                let PathAction::Challenge { along, token, packet_bytes } = action else { continue };
                tokens.push(token);
                let number = (0..14).find(|number| label(*number) == along.label);
                let number = number.expect("a known label");
                let entry = ledger.entry(number).or_insert((0, 0, 0, at));
                let is_open =
                    end.paths.entries.iter().any(|e| e.along.label == along.label && e.is_open);
                assert!(
                    is_open || packet_bytes == 32,
                    "a short one to a label that is not validated"
                );
                entry.2 += if packet_bytes == 32 { 48 } else { 0 };
            }
            for entry in &end.paths.entries {
                let number = (0..14).find(|number| label(*number) == entry.along.label);
                let (came, went, short, since) = of(&mut ledger, number.expect("a known label"));
                if entry.is_open {
                    // Bytes sent along a label while it is validated do not count when the label
                    // must be validated again.
                    ledger.remove(&number.expect("a known label"));
                    continue;
                }
                let seconds = end.now.since(since).0 / 1_000_000_000 + 1;
                assert!(went <= came, "seed {seed}: {went} of {came}");
                assert!(went + short <= came + 48 * seconds as usize, "seed {seed}: {entry:?}");
            }
            assert!(end.paths.entries.len() <= LABELS_MAX);
            assert!(end.paths.active.is_none_or(|active| active < end.paths.entries.len()));
            let active = end.paths.active.map(|active| &end.paths.entries[active]);
            let better = end.paths.entries.iter().find(|entry| {
                entry.state == PathState::Validated
                    && active.is_none_or(|active| {
                        active.state != PathState::Validated
                            || (entry.is_chosen && !active.is_chosen)
                    })
            });
            assert!(better.is_none(), "seed {seed}: {better:?} is not active");
        }
        assert!(logged > 0, "seed {seed}");
    }
}

/// Only the direction from the peer works: the peer challenges, because it receives nothing.
///
/// wire.md: W6-203.
#[test]
fn a_challenge_of_the_peer_does_not_show_that_it_hears_this_end() {
    let mut end = End::connected(true, 0, 1);
    end.fails(1);
    end.send().expect("a path");
    for _ in 0..30 {
        end.paths.note_opened(end.now, &packet(1, Content::Challenge));
        end.run(100);
    }
    assert!(end.paths.is_gone());
    // Both directions work again, and a challenge of the peer makes this end challenge, too.
    end.run(2_000);
    end.works(1, 40);
    end.paths.note_opened(end.now, &packet(1, Content::Challenge));
    assert!(end.paths.is_gone());
    end.run(200);
    assert!(!end.paths.is_gone() && end.paths.is_validated());
}

/// wire.md: W6-204.
#[test]
fn an_abandoned_lane_on_which_the_peer_still_sends_has_no_effect() {
    let mut end = End::connected(false, 0, 1);
    end.open(1);
    end.works(7, 20);
    end.open(7);
    end.run(5_000);
    assert_eq!((end.active(), end.state(7)), (label(1), Some(PathState::Validated)));
    end.paths.handle_path_item(end.now, lane(0), Some(label(7)), lane(0), PathUse::Abandoned);
    assert_eq!((end.active(), end.state(1)), (label(1), Some(PathState::Validated)));
}

/// wire.md: W6-205.
#[test]
fn the_item_says_nothing_of_a_former_path_on_the_same_lane() {
    let mut end = End::connected(true, 1, 1);
    end.fails(1);
    end.send().expect("a path");
    end.run(3_000);
    assert_eq!(end.active(), label(2));
    let items = end.log.iter().filter_map(|(_, action)| match action {
        PathAction::SendPathItem { active, former } => Some((*active, *former)),
        _ => None,
    });
    assert_eq!(items.collect::<Vec<_>>(), [(lane(0), None); 3]);
}

/// wire.md: W6-206.
#[test]
fn an_abandoned_label_is_challenged_again_when_packets_come_by_it() {
    let mut end = End::connected(false, 0, 1);
    end.open(7);
    end.run(5_000);
    assert_eq!(end.state(7), Some(PathState::Abandoned));
    end.works(7, 20);
    end.paths.note_opened(end.now, &packet(7, Content::Response));
    let old = OpenedPacket { is_newest: false, ..packet(7, Content::Message) };
    end.paths.note_opened(end.now, &old);
    assert_eq!(end.state(7), Some(PathState::Abandoned));
    end.open(7);
    end.run(500);
    assert_eq!(end.state(7), Some(PathState::Validated));
}
