//! Recordings that are played up to some time, to see the screen as it was then.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use crate::screen::Screen;
use crate::session::bounds::screen_bytes;
use crate::session::keyframes::{Keyframes, ScreenPieces};
use crate::session::recording::{MAX_EVENT_BYTES, next_line};
use crate::session::render_pool::{RESIZE_COST, SLICE_CELLS};
use crate::terminal::Size;

/// A recording that is played. Of its files it holds one piece of a keyframe, or one event.
#[derive(Debug)]
pub(crate) struct Replay {
    screen: Screen,
    is_begun: bool,
    /// The keyframe that it begins with, as far as that was not read yet.
    keyframe: Option<ScreenPieces>,
    /// What is yet to be drawn of what was read.
    data: Bytes,
    /// The size that the screen is yet to get.
    next_size: Option<Size>,
    scrollback: usize,
    /// So much the screen may take.
    granted: usize,
    events: BufReader<File>,
    until: f64,
}

/// How far a recording is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Played {
    /// Drawn up to the time that was asked for.
    Whole,
    /// Drawn up to where the screen needs so much memory, which is to be [granted](Replay::grant).
    Needs(usize),
}

#[derive(Deserialize)]
struct Header {
    width: u16,
    height: u16,
}

impl Replay {
    /// Goes to the last keyframe before `time`.
    ///
    /// # Errors
    ///
    /// When the files can't be read, or are no recording.
    pub(crate) fn open(
        cast: File,
        keyframes: File,
        time: Duration,
        scrollback: usize,
    ) -> io::Result<Self> {
        let until = time.as_secs_f64();
        let mut events = BufReader::new(cast);
        let line = next_line(&mut events, MAX_EVENT_BYTES)?.unwrap_or_default();
        let header: Header = serde_json::from_slice(&line)?;
        let mut size = Size::clamped(header.width, header.height);
        let mut frames = Keyframes::new(keyframes);
        let mut last = None;
        while let Some(frame) = frames.next()?
            && frame.time <= until
        {
            last = Some(frame);
        }
        let mut keyframe = None;
        if let Some(frame) = last {
            size = frame.size;
            events.seek(SeekFrom::Start(frame.offset))?;
            keyframe = Some(frames.screen(&frame)?);
        }
        Ok(Self {
            screen: Screen::new(1, 1, 0),
            is_begun: false,
            keyframe,
            data: Bytes::new(),
            next_size: Some(size),
            scrollback,
            granted: 0,
            events,
            until,
        })
    }

    /// Lets the screen take so many bytes.
    pub(crate) fn grant(&mut self, bytes: usize) {
        self.granted = bytes;
    }

    /// Plays on for about a [slice](SLICE_CELLS) of work; returns where it stops, if it does.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) fn step(&mut self) -> io::Result<Option<Played>> {
        let mut left = SLICE_CELLS;
        while left > 0 {
            if !self.data.is_empty() || self.screen.is_repeating() {
                let taken = self.screen.feed_within(&self.data, left);
                let _ = self.data.split_to(taken);
                left = left.saturating_sub(self.screen.spent().max(1));
                continue;
            }
            if let Some(size) = self.next_size {
                let needed = screen_bytes(size, self.scrollback);
                if needed > self.granted {
                    return Ok(Some(Played::Needs(needed)));
                }
                self.next_size = None;
                if std::mem::replace(&mut self.is_begun, true) {
                    self.screen.resize(size.cols(), size.rows());
                } else {
                    self.screen = Screen::new(size.cols(), size.rows(), self.scrollback);
                }
                left = left.saturating_sub(RESIZE_COST * self.screen.cells());
                continue;
            }
            if let Some(keyframe) = &mut self.keyframe {
                self.data = keyframe.next()?;
                if self.data.is_empty() {
                    self.keyframe = None;
                }
                continue;
            }
            let Some(line) = next_line(&mut self.events, MAX_EVENT_BYTES)? else {
                return Ok(Some(Played::Whole));
            };
            left = left.saturating_sub(line.len());
            let Ok((at, code, data)) = serde_json::from_slice::<(f64, String, String)>(&line)
            else {
                return Ok(Some(Played::Whole));
            };
            if at > self.until {
                return Ok(Some(Played::Whole));
            }
            match (&*code, data.split_once('x')) {
                ("o", _) => self.data = data.into(),
                ("r", Some((cols, rows))) => {
                    if let (Ok(cols), Ok(rows)) = (cols.parse(), rows.parse()) {
                        self.next_size = Some(Size::clamped(cols, rows));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The screen as it is where this has come.
    pub(crate) fn into_screen(self) -> Screen {
        self.screen
    }
}
