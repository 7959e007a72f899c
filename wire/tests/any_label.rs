//! Labels of any width as text and bytes.

use strowger_wire::label::{AnyLabel, TextError, TextFault};

#[test]
fn the_number_of_groups_is_the_width() {
    let text = ["0000.4321.1234.4321"; 4].join(".");
    for (groups, bits) in [(4, 64), (8, 128), (16, 256)] {
        let text = &text[..groups * 5 - 1];
        let label: AnyLabel = text.parse().unwrap();
        assert_eq!((label.width_bits(), label.bits()), (bits, bits - 17));
        assert_eq!(label.to_string(), text);
        assert_eq!(
            text.replace('1', "f").to_uppercase().parse(),
            text.replace('1', "f").parse::<AnyLabel>()
        );
        let read = label.with_be_bytes(|bytes| {
            assert_eq!(bytes.len() * 8, bits as usize);
            AnyLabel::from_be_bytes(bytes)
        });
        assert_eq!(read, Some(label));
    }
    assert_eq!(AnyLabel::from_be_bytes(&[0; 9]), None);
    assert_eq!(AnyLabel::from_be_bytes(&[]), None);
}

#[test]
fn no_digit_may_be_omitted() {
    let wrong = |text: &str| text.parse::<AnyLabel>().unwrap_err();
    assert_eq!(wrong(""), TextError { at: 0, fault: TextFault::Empty });
    assert_eq!(wrong("15"), TextError { at: 2, fault: TextFault::Groups });
    assert_eq!(wrong("0000.0000.0015"), TextError { at: 14, fault: TextFault::Groups });
    assert_eq!(wrong("0.0000.0000.0015"), TextError { at: 1, fault: TextFault::Dot });
    assert_eq!(wrong("0000.0000.0000.0000.0015").fault, TextFault::Groups);
    assert_eq!(wrong("0000.0000.0000.00g5").fault, TextFault::NotHex);
    assert_eq!(wrong("0000.0000.0000.001"), TextError { at: 18, fault: TextFault::Dot });
    assert_eq!(wrong("0000.0000.0000.00155").fault, TextFault::TooLong);
    assert_eq!(wrong(&["0000"; 17].join(".")).fault, TextFault::TooLong);
}
