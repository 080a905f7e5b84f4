use proptest::prelude::*;

use super::Screen;

proptest! {
    /// Whatever comes, nothing panics, and pieces are as good as the whole.
    #[test]
    fn any_bytes_in_any_pieces(
        bytes in prop::collection::vec(
            prop_oneof![
                4 => any::<u8>(),
                4 => prop::sample::select(b"\x1b[]?;:0123456789hlmHJKrABCDLMPX@\x07\\()n7834c".to_vec()),
                2 => 0x20u8..0x7f,
            ],
            0..400,
        ),
        size in (1u16..12, 1u16..8),
        other in (1u16..12, 1u16..8),
        piece in 1usize..9,
    ) {
        let mut whole = Screen::new(size.0, size.1, 5);
        whole.feed(&bytes);
        let mut pieces = Screen::new(size.0, size.1, 5);
        bytes.chunks(piece).for_each(|piece| pieces.feed(piece));
        prop_assert_eq!(whole.snapshot(), pieces.snapshot());
        whole.resize(other.0, other.1);
        whole.feed(&bytes);
        let _ = (whole.snapshot(), whole.text(), whole.take_replies());
    }
}

#[test]
fn huge_sequences_are_bounded() {
    let mut screen = Screen::new(80, 24, 300);
    screen.feed(b"\x1b]0;");
    for _ in 0..1000 {
        screen.feed(&[b'x'; 10_000]);
    }
    assert!(screen.snapshot().len() < 100_000);
    screen.feed(b"\x07\x1b[999999999999999999999b\x1b[2147483647@\x1b[99999;99999Hx\x1b[9999999C");
    screen.feed(b"e");
    for _ in 0..1000 {
        screen.feed("\u{301}".as_bytes());
    }
    screen.feed(b"\x1b[");
    screen.feed(&[b'1'; 1_000_000]);
    assert!(screen.snapshot().len() < 100_000);
    let mut screen = Screen::new(u16::MAX, u16::MAX, 10);
    screen.feed(b"\x1b[999;999Hx");
    assert_eq!(screen.size(), (super::MAX_COLS, super::MAX_ROWS));
}

#[test]
fn the_default_colors_are_those_of_the_terminal_it_is_drawn_on() {
    let mut screen = Screen::new(80, 24, 0);
    screen.set_default_colors([[0x1f, 0x27, 0x33], [0xfc, 0xfc, 0xfd], [0, 0, 0xff]]);
    screen.feed(b"\x1b]10;?;?;?\x07\x1b]11;#102030\x07\x1bc\x1b]11;?\x07\x1b]111\x07\x1b]11;?\x07");
    let replies = String::from_utf8(screen.take_replies()).expect("text");
    let told: Vec<&str> = replies.split_terminator("\x1b\\").collect();
    let usual = "\x1b]11;rgb:fcfc/fcfc/fdfd";
    let cursor = "\x1b]12;rgb:0000/0000/ffff";
    let set = "\x1b]11;rgb:1010/2020/3030";
    assert_eq!(told, ["\x1b]10;rgb:1f1f/2727/3333", usual, cursor, set, usual]);
    assert!(!String::from_utf8(screen.snapshot()).expect("text").contains("rgb:"));
}

#[test]
fn questions_are_answered_once() {
    let mut screen = Screen::new(80, 24, 0);
    screen.feed(b"ab\x1b[c\x1b[6n\x1b[?2026$p\x1b[>q\x1b]11;?\x07\x1b[21t\x1b]52;c;?\x07\x1b[5n");
    let replies = String::from_utf8(screen.take_replies()).expect("text");
    assert!(replies.starts_with("\x1b[?1;2c\x1b[1;3R\x1b[?2026;2$y\x1bP>|splengine("));
    assert!(replies.ends_with("\x1b\\\x1b]11;rgb:0000/0000/0000\x1b\\\x1b[0n"));
    assert!(screen.take_replies().is_empty());
    assert_eq!(screen.cursor_queries(), 1);
    let mut copy = Screen::new(80, 24, 0);
    copy.feed(&screen.snapshot());
    assert!(copy.take_replies().is_empty());
}

/// As xterm.js has it: inserting behind a wide character moves its second half away, which is a
/// column of its own then.
#[test]
fn half_of_a_wide_character_that_was_moved_away_is_a_column() {
    let mut screen = Screen::new(8, 2, 0);
    screen.feed("a\u{6f22}c\x1b[3G\x1b[@".as_bytes());
    assert_eq!(screen.text(), "a   c");
    let mut copy = Screen::new(8, 2, 0);
    copy.feed(&screen.snapshot());
    assert_eq!(copy.text(), "a   c");
}

/// What costs much for few bytes.
const COSTLY: [&str; 18] = [
    "\x1b[41m",
    "\x1b[2J",
    "\x1b[?2J",
    "\x1b[500S",
    "\x1b[500L",
    "\x1b[500T\x1b[7M",
    "\x1b[999999b",
    "e\u{301}\x1b[999999b",
    "\x1b#8",
    "\x1b[7 @\x1b[3'}",
    "\x1b[4h",
    "\x1b[?1049h",
    "\x1b[?1049l",
    "\x1b[5;20r\x1b[20;1H",
    "\n\n\n\n\n\n\n",
    "\x1bc",
    "\x1b[3g\t\t\t\x1b[999Z",
    "\u{6f22}x\x1b[1\"q",
];

fn touched() -> usize {
    super::row::TOUCHED.replace(0)
}

proptest! {
    /// However much a few bytes ask for, a slice does little more than it may, what it does is
    /// accounted for, and slices are as good as the whole.
    #[test]
    fn a_slice_touches_few_cells(
        parts in prop::collection::vec(
            prop_oneof![
                3 => prop::sample::select(COSTLY.to_vec()).prop_map(str::to_owned),
                1 => "[ -~]{0,90}",
            ],
            0..24,
        ),
        size in (1u16..90, 1u16..40),
        cells in 1usize..3000,
    ) {
        let bytes = parts.concat().into_bytes();
        let mut whole = Screen::new(size.0, size.1, 30);
        whole.feed(&bytes);
        let mut sliced = Screen::new(size.0, size.1, 30);
        let mut rest = &bytes[..];
        while !rest.is_empty() || sliced.is_repeating() {
            touched();
            rest = &rest[sliced.feed_within(rest, cells)..];
            let touched = touched();
            let (rows, cols) = (usize::from(size.1), usize::from(size.0));
            prop_assert!(touched <= sliced.spent(), "{touched} of {}", sliced.spent());
            // A few looks at every cell, or what 64 characters come to.
            let most = (4 * (rows + 70) * (cols + 8)).max(64 * 4 * (rows + cols + 8));
            prop_assert!(sliced.spent() < cells + most, "{} of {cells}", sliced.spent());
        }
        prop_assert_eq!(whole.snapshot(), sliced.snapshot());
    }
}

/// Of a screen of any size, the costliest thing that a few bytes ask for is a few looks at its cells.
#[test]
fn a_slice_of_the_largest_screen_is_bounded() {
    let mut screen = Screen::new(1000, 500, 300);
    let bytes = COSTLY.concat().into_bytes();
    let mut rest = &bytes[..];
    while !rest.is_empty() || screen.is_repeating() {
        touched();
        rest = &rest[screen.feed_within(rest, 65_536)..];
        let touched = touched();
        assert!(touched <= 65_536 + 2_000_000, "{touched}");
        assert!(touched <= screen.spent(), "{touched} of {}", screen.spent());
    }
}

/// What scrolls moves rows, not cells.
#[test]
fn scrolling_by_many_rows_costs_no_more_than_by_one() {
    let mut screen = Screen::new(1000, 500, 300);
    screen.feed(b"\x1b#8");
    for scrolls in [&b"\x1b[499S"[..], b"\x1b[499T", b"\x1b[499L", b"\x1b[499M"] {
        screen.feed_within(scrolls, usize::MAX);
        assert!(screen.spent() < 5000, "{}", screen.spent());
    }
}

#[test]
fn texts_and_links_that_are_all_in_use_are_not_swept_for_each() {
    let mut screen = Screen::new(400, 200, 0);
    let mut bytes = String::new();
    for at in 0..33_000_u32 {
        bytes.push(char::from_u32(0x4e00 + at % 20_000).expect("a character"));
        bytes.push(if at < 20_000 { '\u{301}' } else { '\u{302}' });
    }
    screen.feed(bytes.as_bytes());
    screen.feed_within("x\u{303}".repeat(1000).as_bytes(), usize::MAX);
    assert!(screen.spent() < 1_000_000, "{}", screen.spent());
    screen.feed("\x1b]8;;http://a\x07x".repeat(3000).as_bytes());
    screen.feed_within("\x1b]8;;http://a\x07x".repeat(500).as_bytes(), usize::MAX);
    assert!(screen.spent() < 10_000_000, "{}", screen.spent());
}
