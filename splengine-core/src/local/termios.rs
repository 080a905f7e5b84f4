//! Terminal modes by the numbers of RFC 4254, section 8, set on this host's terminals.

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios,
};

use crate::terminal::TerminalModes;

/// Sets what of `wanted` this host knows.
pub(crate) fn set(modes: &mut Termios, wanted: &TerminalModes) {
    for &(number, value) in &wanted.0 {
        if let Some((_, index)) = CHARACTERS.iter().find(|(known, _)| *known == number) {
            // 255 stands for none, which is 0 here.
            let code = u8::try_from(value).ok().filter(|code| *code != 255).unwrap_or(0);
            modes.special_codes[*index] = code;
        } else if let Some((_, flag)) = INPUT.iter().find(|(known, _)| *known == number) {
            modes.input_modes.set(*flag, value != 0);
        } else if let Some((_, flag)) = LOCAL.iter().find(|(known, _)| *known == number) {
            modes.local_modes.set(*flag, value != 0);
        } else if let Some((_, flag)) = OUTPUT.iter().find(|(known, _)| *known == number) {
            modes.output_modes.set(*flag, value != 0);
        } else {
            match number {
                PARENB => modes.control_modes.set(ControlModes::PARENB, value != 0),
                PARODD => modes.control_modes.set(ControlModes::PARODD, value != 0),
                // The speeds of a line that there is not, and a width that UTF-8 takes for granted.
                _ => {}
            }
        }
    }
}

const PARENB: u8 = 92;
const PARODD: u8 = 93;

const CHARACTERS: &[(u8, SpecialCodeIndex)] = &[
    (1, SpecialCodeIndex::VINTR),
    (2, SpecialCodeIndex::VQUIT),
    (3, SpecialCodeIndex::VERASE),
    (4, SpecialCodeIndex::VKILL),
    (5, SpecialCodeIndex::VEOF),
    (6, SpecialCodeIndex::VEOL),
    (7, SpecialCodeIndex::VEOL2),
    (8, SpecialCodeIndex::VSTART),
    (9, SpecialCodeIndex::VSTOP),
    (10, SpecialCodeIndex::VSUSP),
    (12, SpecialCodeIndex::VREPRINT),
    (13, SpecialCodeIndex::VWERASE),
    (14, SpecialCodeIndex::VLNEXT),
    (18, SpecialCodeIndex::VDISCARD),
];

const INPUT: &[(u8, InputModes)] = &[
    (30, InputModes::IGNPAR),
    (31, InputModes::PARMRK),
    (32, InputModes::INPCK),
    (33, InputModes::ISTRIP),
    (34, InputModes::INLCR),
    (35, InputModes::IGNCR),
    (36, InputModes::ICRNL),
    (38, InputModes::IXON),
    (39, InputModes::IXANY),
    (40, InputModes::IXOFF),
    (41, InputModes::IMAXBEL),
    (42, InputModes::IUTF8),
];

const LOCAL: &[(u8, LocalModes)] = &[
    (50, LocalModes::ISIG),
    (51, LocalModes::ICANON),
    (53, LocalModes::ECHO),
    (54, LocalModes::ECHOE),
    (55, LocalModes::ECHOK),
    (56, LocalModes::ECHONL),
    (57, LocalModes::NOFLSH),
    (58, LocalModes::TOSTOP),
    (59, LocalModes::IEXTEN),
    (60, LocalModes::ECHOCTL),
    (61, LocalModes::ECHOKE),
    (62, LocalModes::PENDIN),
];

const OUTPUT: &[(u8, OutputModes)] = &[
    (70, OutputModes::OPOST),
    (72, OutputModes::ONLCR),
    (73, OutputModes::OCRNL),
    (74, OutputModes::ONOCR),
    (75, OutputModes::ONLRET),
];
