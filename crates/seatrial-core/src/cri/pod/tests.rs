use super::*;

#[test]
fn hexadecimal_digits_are_bytes() {
    assert_eq!(unhex("00ff7a").unwrap(), [0, 255, 0x7a]);
    for wrong in ["0", "0g", "000"] {
        assert!(unhex(wrong).is_err(), "{wrong}");
    }
}
