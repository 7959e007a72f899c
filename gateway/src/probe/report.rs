//! The report of `strowger probe`.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use strowger_runtime::untrusted::Untrusted;

use crate::{
    exit::{Exit, Failure, output_ended},
    target::Target,
};

/// The result of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Passed,
    Failed,
    Skipped,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Passed => "ok",
            State::Failed => "failed",
            State::Skipped => "not checked",
        }
    }
}

/// The stages that every report has, in their order.
const STAGES: [&str; 10] = [
    "address book",
    "relay",
    "resolution",
    "label",
    "hop",
    "handshake",
    "round trip",
    "width",
    "identify",
    "protocol",
];

/// A stage that was checked.
struct Stage {
    name: &'static str,
    state: State,
    took: Duration,
    text: String,
}

/// The stages in the order in which they were checked, and the properties that were not checked.
pub(super) struct Report {
    peer: String,
    stages: Vec<Stage>,
    not_checked: Vec<String>,
}

impl Report {
    pub(super) fn new(target: &Target) -> Report {
        Report { peer: target.to_string(), stages: Vec::new(), not_checked: Vec::new() }
    }

    /// Adds a stage.
    pub(super) fn add(&mut self, name: &'static str, state: State, took: Duration, text: String) {
        self.stages.push(Stage { name, state, took, text });
    }

    /// Adds a stage with the outcome of a call.
    ///
    /// # Errors
    /// The exit code of the failure.
    pub(super) fn stage<T>(
        &mut self,
        name: &'static str,
        began: Instant,
        outcome: Result<T, Failure>,
        text: impl FnOnce(&T) -> String,
    ) -> Result<T, Exit> {
        self.stage_of(name, began.elapsed(), outcome, text)
    }

    /// As [`stage`](Self::stage), with the duration of the call as an argument.
    ///
    /// # Errors
    /// The exit code of the failure.
    pub(super) fn stage_of<T>(
        &mut self,
        name: &'static str,
        took: Duration,
        outcome: Result<T, Failure>,
        text: impl FnOnce(&T) -> String,
    ) -> Result<T, Exit> {
        match outcome {
            Ok(value) => {
                self.add(name, State::Passed, took, text(&value));
                Ok(value)
            }
            Err(failure) => {
                self.add(name, State::Failed, took, failure.line);
                Err(failure.exit)
            }
        }
    }

    /// After a failure: adds the stages that were not checked.
    pub(super) fn add_rest(&mut self) {
        let Some(failed) = self.failed().map(|stage| stage.name) else { return };
        for name in STAGES {
            if !self.stages.iter().any(|stage| stage.name == name) {
                self.add(name, State::Skipped, Duration::ZERO, format!("{failed} has failed"));
            }
        }
    }

    /// Whether a stage has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed().is_some()
    }

    /// Adds a property that the probe cannot check.
    pub(super) fn not_checked(&mut self, what: String) {
        self.not_checked.push(what);
    }

    fn failed(&self) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.state == State::Failed)
    }

    fn verdict(&self) -> String {
        match self.failed() {
            None => format!("{} is reached", self.peer),
            Some(stage) => {
                let is_reached = self
                    .stages
                    .iter()
                    .any(|stage| stage.name == "handshake" && stage.state == State::Passed);
                let reached = if is_reached { " is reached, but" } else { ":" };
                format!("{}{reached} {} failed", self.peer, stage.name)
            }
        }
    }

    /// Prints the report.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(super) fn print(&self, json: bool, output: &mut dyn Write) -> Result<(), Failure> {
        let text = if json { format!("{}\n", self.object()) } else { self.text() };
        output.write_all(text.as_bytes()).or_else(|error| output_ended(&error))
    }

    fn object(&self) -> Value {
        let stages = self.stages.iter().map(|stage| {
            json!({
                "stage": stage.name,
                "verdict": match stage.state {
                    State::Skipped => "not_checked",
                    state => state.name(),
                },
                "ms": stage.took.as_secs_f64() * 1e3,
                "text": stage.text,
            })
        });
        json!({
            "peer": self.peer,
            "ok": self.failed().is_none(),
            "failed": self.failed().map(|stage| stage.name),
            "stages": stages.collect::<Vec<_>>(),
            "not_checked": self.not_checked,
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Stage { name, state, took, text: what } in &self.stages {
            let (state, took) = (state.name(), took.as_secs_f64() * 1e3);
            text += &format!("{name:<13} {state:<11} {took:>9.1} ms  {}\n", Untrusted(what));
        }
        if !self.not_checked.is_empty() {
            text += &format!("not checked: {}\n", Untrusted(&self.not_checked.join("; ")));
        }
        text + &format!("{}\n", Untrusted(&self.verdict()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_the_first_stage_that_failed() {
        let peer = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY".parse().unwrap();
        let mut report = Report::new(&Target { peer, name: Some("a".into()), address: None });
        report.add("relay", State::Passed, Duration::from_millis(2), "attached".into());
        assert_eq!(report.object()["ok"], true);
        assert!(report.text().ends_with(" is reached\n"));
        report.add("handshake", State::Failed, Duration::from_secs(1), "no\u{1b}answer".into());
        report.add("width", State::Failed, Duration::ZERO, "narrow".into());
        report.not_checked("the rest".into());
        let object = report.object();
        assert_eq!((&object["ok"], &object["failed"]), (&json!(false), &json!("handshake")));
        assert_eq!(object["stages"][0]["verdict"], "ok");
        assert_eq!(object["not_checked"], json!(["the rest"]));
        let text = report.text();
        assert!(
            text.contains("handshake     failed         1000.0 ms  no\\u{1b}answer\n"),
            "{text}"
        );
        assert!(text.ends_with(": handshake failed\n"), "{text}");

        // Each stage is there once, checked or not.
        report.add_rest();
        let text = report.text();
        for stage in STAGES {
            assert_eq!(text.lines().filter(|line| line.starts_with(stage)).count(), 1, "{text}");
        }
        assert!(
            text.contains("protocol      not checked       0.0 ms  handshake has failed"),
            "{text}"
        );
    }
}
