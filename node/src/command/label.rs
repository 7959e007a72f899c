//! `strowger label show|splice|reverse|build|step`: label operations for interactive use. Programs
//! use `conform`.

use std::fmt;
use std::io::{self, Write};

use strowger_wire::{
    Director, Hop, Label, Scheme, Slot,
    director::DirectorError,
    label::{Step, step},
    scheme::{NAMED, V3X5X8},
};

use crate::{
    exit::{Exit, Failure, output_ended},
    labels::{hops_of_links, scheme_of, scheme_text},
};

/// The help text of the command.
pub(crate) const USAGE: &str = "\
strowger label show LABEL [--shift N]           the slot of each director of a label
strowger label splice FIRST NEXT [MORE...]      one label that leads along all of these
strowger label reverse LABEL SHIFT [INGRESS]    the return path of a label that has arrived
strowger label build OUT:IN [OUT:IN...]         a label through links, from slot 1 to slot 1
strowger label build --switches IN:OUT [...]    the same through switches, slot by slot
strowger label step LABEL SHIFT INGRESS         what one switch does with a label

Labels are hex, as 15 or 0000.0000.0000.0015. OUT is the slot by which a packet leaves a switch, IN
the slot by which it enters the next. --scheme f4|f8|v3x5x8|v4x8|HEX is the scheme of the switches
(v3x5x8). step treats every slot as attached; --u-turns lets a packet leave by the slot it came in by.
";

/// The reason why the command has no result.
#[derive(Debug)]
enum LabelFailure {
    /// The arguments are wrong. The line names the fault.
    Usage(String),
    /// The arguments are well-formed, but there is no result. The line gives the reason.
    Refused(String),
    /// The output cannot be written.
    Output(io::Error),
}

impl fmt::Display for LabelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabelFailure::Usage(line) | LabelFailure::Refused(line) => f.write_str(line),
            LabelFailure::Output(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LabelFailure {}

impl From<io::Error> for LabelFailure {
    fn from(error: io::Error) -> LabelFailure {
        LabelFailure::Output(error)
    }
}

/// `strowger label`: `arguments` are those after the word `label`.
///
/// # Errors
/// One line: the arguments are wrong, there is no result, or the output cannot be written.
pub(crate) fn run(arguments: &[String], output: &mut dyn Write) -> Result<(), Failure> {
    answer(arguments, output).or_else(|failure| match failure {
        LabelFailure::Output(error) => output_ended(&error),
        LabelFailure::Usage(line) => Err(Failure::new(Exit::Usage, line)),
        LabelFailure::Refused(line) => Err(Failure::new(Exit::CheckFailed, line)),
    })
}

/// Writes the result for these arguments.
///
/// # Errors
/// [`LabelFailure`], with one line for the user.
fn answer(arguments: &[String], output: &mut dyn Write) -> Result<(), LabelFailure> {
    let given = ParsedArguments::sort(arguments)?;
    let Some((&verb, operands)) = given.operands.split_first() else {
        return if given.help {
            Ok(write!(output, "{USAGE}")?)
        } else {
            usage("a verb is missing: show, splice, reverse, build or step")
        };
    };
    if given.help {
        return Ok(write!(output, "{USAGE}")?);
    }
    match (verb, operands) {
        ("show", [label]) => show(&given, label, output),
        ("splice", [first, onward @ ..]) if !onward.is_empty() => splice(first, onward, output),
        ("reverse", [label, shift]) => reverse(&given, label, shift, None, output),
        ("reverse", [label, shift, ingress]) => {
            reverse(&given, label, shift, Some(ingress), output)
        }
        ("build", hops) if !hops.is_empty() => build(&given, hops, output),
        ("step", [label, shift, ingress]) => step_once(&given, label, shift, ingress, output),
        ("show" | "splice" | "reverse" | "build" | "step", _) => {
            usage(&format!("wrong arguments; usage: {}", usage_of(verb)))
        }
        _ => usage(&format!("label has no verb `{verb}`: show, splice, reverse, build or step")),
    }
}

/// The usage of a verb, from the help text.
fn usage_of(verb: &str) -> &'static str {
    let start = format!("strowger label {verb} ");
    let line = USAGE.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
    line.split("  ").next().unwrap_or_default()
}

fn usage<T>(line: &str) -> Result<T, LabelFailure> {
    Err(LabelFailure::Usage(format!("{line} (see strowger label --help)")))
}

fn refused(error: impl fmt::Display) -> LabelFailure {
    LabelFailure::Refused(error.to_string())
}

/// The arguments, separated into options and operands.
struct ParsedArguments<'a> {
    operands: Vec<&'a str>,
    scheme: Scheme,
    shift: Option<&'a str>,
    switches: bool,
    u_turns: bool,
    help: bool,
}

impl<'a> ParsedArguments<'a> {
    fn sort(arguments: &'a [String]) -> Result<ParsedArguments<'a>, LabelFailure> {
        let mut given = ParsedArguments {
            operands: Vec::new(),
            scheme: V3X5X8,
            shift: None,
            switches: false,
            u_turns: false,
            help: false,
        };
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            let (option, joined) = match argument.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value)),
                _ => (argument, None),
            };
            let mut value = || {
                let value = joined.or_else(|| rest.next());
                value.map_or_else(|| usage(&format!("{option} needs a value")), Ok)
            };
            match option {
                "--scheme" => given.scheme = read_scheme(value()?)?,
                "--shift" => given.shift = Some(value()?),
                "--switches" if joined.is_none() => given.switches = true,
                "--u-turns" if joined.is_none() => given.u_turns = true,
                "--help" | "-h" if joined.is_none() => given.help = true,
                _ if option.starts_with('-') => return usage(&format!("no option `{argument}`")),
                _ => given.operands.push(argument),
            }
        }
        Ok(given)
    }
}

fn read_scheme(text: &str) -> Result<Scheme, LabelFailure> {
    scheme_of(text).map_err(|kind| {
        let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        LabelFailure::Usage(format!(
            "`{text}` is not a scheme ({kind}): need {names}, or the hex of a serialization"
        ))
    })
}

fn read_label(text: &str) -> Result<Label, LabelFailure> {
    text.parse().map_err(|error| LabelFailure::Usage(format!("`{text}` is not a label: {error}")))
}

/// Reads a slot number that the scheme can encode.
fn read_slot(text: &str, scheme: &Scheme) -> Result<Slot, LabelFailure> {
    match text.parse() {
        Ok(number) => check_slot(scheme, Slot::new(number)),
        Err(_) => usage(&format!("`{text}` is not a slot: need a number from 0")),
    }
}

/// Checks that the scheme can encode the slot.
fn check_slot(scheme: &Scheme, slot: Slot) -> Result<Slot, LabelFailure> {
    let highest = || {
        let forms = 0..scheme.forms().len() as u8;
        let highest = forms.filter_map(|form| {
            let bits = scheme.forms()[usize::from(form)].data_bits;
            scheme.slot_at(form, ((1_u64 << bits) - 1) as u32)
        });
        highest.max().unwrap_or(slot)
    };
    match scheme.encode_least(slot) {
        Err(DirectorError::SlotTooWide) => Err(LabelFailure::Usage(format!(
            "slot {slot} does not fit scheme {} (0 to {})",
            scheme_text(scheme),
            highest()
        ))),
        _ => Ok(slot),
    }
}

fn read_shift(text: &str) -> Result<u16, LabelFailure> {
    match text.parse() {
        Ok(shift) if shift < 64 => Ok(shift),
        _ => usage(&format!("`{text}` is not a shift: need the bits used so far, 0 to 63")),
    }
}

fn scheme_words(scheme: &Scheme) -> &'static str {
    scheme.name().unwrap_or("a scheme without a name")
}

/// The bits of a director, highest bit first, in the notation of wire.md.
fn bits_words(director: Director) -> String {
    format!("{:0width$b}", director.bits(), width = usize::from(director.width()))
}

fn show(
    given: &ParsedArguments<'_>,
    label: &str,
    output: &mut dyn Write,
) -> Result<(), LabelFailure> {
    let (label, scheme) = (read_label(label)?, &given.scheme);
    let shift = given.shift.map_or(Ok(0), read_shift)?;
    writeln!(output, "{label}")?;
    let mut rest = label.forward(shift);
    writeln!(output, "forward, in {}:", scheme_words(scheme))?;
    if rest.is_zero() {
        writeln!(output, "  nothing: the label has no bits left")?;
    }
    let mut hop = 1;
    while !rest.is_zero() {
        if rest == Label::here() {
            writeln!(output, "  {hop:>2}.  the end: slot 1 here, or the endpoint named before")?;
            break;
        }
        let Ok(director) = rest.decode(scheme) else {
            writeln!(output, "  {hop:>2}.  no director begins with these bits")?;
            break;
        };
        let (slot, width, bits) = (director.slot(), director.width(), bits_words(director));
        if slot.is_switch() {
            writeln!(output, "  {hop:>2}.  slot 1, the switch itself   {bits} ({width} bits)")?;
            break;
        }
        writeln!(output, "  {hop:>2}.  slot {slot:<5} {bits} ({width} bits)")?;
        rest = Label::new(rest.register() >> width);
        hop += 1;
    }
    if shift > 0 {
        match label.reverse(shift, None) {
            Ok(back) => writeln!(output, "return path, {shift} bits: {back}")?,
            Err(error) => writeln!(output, "return path: none, {error}")?,
        }
    }
    Ok(())
}

fn splice(first: &str, onward: &[&str], output: &mut dyn Write) -> Result<(), LabelFailure> {
    let mut label = read_label(first)?;
    for onward in onward {
        label = Label::splice(read_label(onward)?, label).map_err(refused)?;
    }
    Ok(writeln!(output, "{label}")?)
}

fn reverse(
    given: &ParsedArguments<'_>,
    label: &str,
    shift: &str,
    ingress: Option<&str>,
    output: &mut dyn Write,
) -> Result<(), LabelFailure> {
    let (label, shift) = (read_label(label)?, read_shift(shift)?);
    let ingress = match ingress {
        Some(slot) => {
            Some(given.scheme.encode_least(read_slot(slot, &given.scheme)?).map_err(refused)?)
        }
        None => None,
    };
    let back = label.reverse(shift, ingress).map_err(refused)?;
    Ok(writeln!(output, "{back}")?)
}

fn build(
    given: &ParsedArguments<'_>,
    hops: &[&str],
    output: &mut dyn Write,
) -> Result<(), LabelFailure> {
    let mut pairs = Vec::new();
    for hop in hops {
        let Some((left, right)) = hop.split_once(':') else {
            return usage(&format!("`{hop}` is not a hop: need two slots, as 2:9"));
        };
        pairs.push((
            given.scheme,
            read_slot(left, &given.scheme)?,
            read_slot(right, &given.scheme)?,
        ));
    }
    let hops: Vec<Hop<'_>> = if given.switches {
        pairs
            .iter()
            .map(|(scheme, ingress, egress)| Hop { scheme, egress: *egress, ingress: *ingress })
            .collect()
    } else {
        hops_of_links(&pairs)
    };
    let (label, back) = Label::<u64>::build(&hops).map_err(refused)?;
    writeln!(output, "label {label}")?;
    Ok(writeln!(output, "back  {back}")?)
}

fn step_once(
    given: &ParsedArguments<'_>,
    label: &str,
    shift: &str,
    ingress: &str,
    output: &mut dyn Write,
) -> Result<(), LabelFailure> {
    let (label, shift, ingress) =
        (read_label(label)?, read_shift(shift)?, read_slot(ingress, &given.scheme)?);
    match step(&given.scheme, label, shift, ingress, |_| true, given.u_turns).map_err(refused)? {
        Step::Forward { to, label, shift } => writeln!(output, "slot {to}, {label}, shift {shift}"),
        Step::Arrive { written: Some((label, shift)) } => {
            writeln!(output, "arrived at slot 1, {label}, shift {shift}")
        }
        Step::Arrive { written: None } => {
            writeln!(output, "arrived at slot 1, {label}, shift {shift}, slot {ingress} beside it")
        }
    }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<String, LabelFailure> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut output = Vec::new();
        answer(&arguments, &mut output)?;
        Ok(String::from_utf8(output).unwrap())
    }

    fn error_of(line: &str) -> String {
        let error = ask(line).unwrap_err().to_string();
        assert!(!error.contains('\n'), "one line: {error}");
        error
    }

    #[test]
    fn a_label_is_shown_hop_by_hop() {
        let shown = ask("show a863").unwrap();
        for part in ["0000.0000.0000.a863", "slot 0", "0000110 (7 bits)", "slot 2", "the end"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(ask("show c800000000000000 --shift 8").unwrap().contains("0000.0000.0000.0013"));
        assert!(ask("show 0").unwrap().contains("no bits left"));
        assert!(ask("show 115 --scheme=f8").unwrap().contains("slot 21"));
    }

    #[test]
    fn a_chain_is_built_from_links_and_from_switches() {
        let wanted = "label 0000.0000.0000.a863\nback  0000.0000.0000.a233\n";
        assert_eq!(ask("build 0:9 2:0 2:0").unwrap(), wanted);
        assert_eq!(ask("build --switches 1:0 9:2 0:2 0:1").unwrap(), wanted);
    }

    #[test]
    fn splice_reverse_and_step_answer_one_line() {
        assert_eq!(ask("splice 13 15").unwrap(), "0000.0000.0000.0153\n");
        assert_eq!(ask("splice 13 15 15").unwrap(), "0000.0000.0000.1553\n");
        assert_eq!(ask("reverse c800000000000000 8").unwrap(), "0000.0000.0000.0013\n");
        assert_eq!(ask("reverse 8000000000000001 4 0").unwrap(), "0000.0000.0000.0013\n");
        let stepped = ask("step 15 0 1").unwrap();
        assert_eq!(stepped, "slot 2, 8000.0000.0000.0001, shift 4\n");
        let beside = ask("step 11 0 100").unwrap();
        assert!(beside.contains("slot 100 beside it"), "{beside}");
        assert!(error_of("step 21 0 100").contains("goes on behind the director of slot 1"));
    }

    #[test]
    fn an_error_is_one_line() {
        assert!(error_of("show 12x4").contains("byte 2"));
        assert!(error_of("show 15 --scheme v9").contains("v3x5x8"));
        assert!(error_of("build 2").contains("2:9"));
        for (line, why) in [
            ("build 300:1", "slot 300 does not fit scheme v3x5x8 (0 to 256)"),
            ("build 2:16 --scheme f4", "slot 16 does not fit scheme f4 (0 to 15)"),
            ("reverse 8000000000000001 4 257", "slot 257 does not fit scheme v3x5x8 (0 to 256)"),
        ] {
            let failure = ask(line).unwrap_err();
            assert!(matches!(failure, LabelFailure::Usage(_)), "exit code 2: {failure}");
            assert_eq!(failure.to_string(), why);
        }
        assert!(ask("build 256:0").is_ok());
        assert!(error_of("fly").contains("show, splice"));
        assert!(error_of("").contains("--help"));
        assert!(error_of("step 15 64 1").contains("0 to 63"));
        assert!(error_of("step 15 0 2").contains("came in by"));
        assert!(error_of("show 15 --shift").contains("needs a value"));
        assert!(ask("step 15 0 2 --u-turns").is_ok());
        assert!(ask("--help").unwrap().contains("label build"));
    }
}
