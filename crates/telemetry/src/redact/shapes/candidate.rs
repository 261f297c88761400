//! Checks of what follows a prefix. Knows the kinds of keys, not how prefixes are found.

use std::ops::Range;
use std::sync::LazyLock;

use regex::bytes::Regex;

/// Maximum distance between the BEGIN and the END line of a private key.
const MAX_PRIVATE_KEY_BYTES: usize = 32 << 10;
/// Maximum size of a label in a BEGIN line.
const MAX_LABEL_BYTES: usize = 64;
/// Maximum size of user and password in a URL.
const MAX_USERINFO_BYTES: usize = 1 << 10;
/// Bytes of a key in which a digit is expected, where the prefix alone could be an ordinary word.
const DIGIT_WINDOW: usize = 64;

/// Kind of key behind a prefix.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A run of at least `min` bytes of a class.
    Run {
        class: Class,
        min: usize,
        digit: bool,
    },
    Aws,
    Google,
    Jwt,
    PrivateKey,
    UrlPassword,
    Authorization,
    Bearer,
}

impl Kind {
    pub(super) const fn letters(min: usize) -> Self {
        Self::Run { class: Class::Letters, min, digit: false }
    }

    pub(super) const fn word(min: usize) -> Self {
        Self::Run { class: Class::Word, min, digit: false }
    }

    pub(super) const fn word_with_digit(min: usize) -> Self {
        Self::Run { class: Class::Word, min, digit: true }
    }

    pub(super) const fn base64(min: usize) -> Self {
        Self::Run { class: Class::Base64, min, digit: false }
    }
}

/// Bytes of which a run consists.
#[derive(Debug, Clone, Copy)]
pub(super) enum Class {
    Letters,
    Word,
    Base64,
    /// Opaque tokens of HTTP headers.
    Token,
    /// Body of a PEM block, also escaped.
    Pem,
    UserInfo,
    Label,
}

impl Class {
    fn contains(self, byte: u8) -> bool {
        let letter = byte.is_ascii_alphanumeric();
        match self {
            Self::Letters => letter,
            Self::Word => letter || matches!(byte, b'_' | b'-'),
            Self::Base64 => letter || matches!(byte, b'+' | b'/' | b'='),
            Self::Token => letter || matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-'),
            Self::Pem => {
                letter
                    || byte.is_ascii_whitespace()
                    || matches!(byte, b'+' | b'/' | b'=' | b'\\' | b':' | b'.' | b',' | b'-')
            }
            Self::UserInfo => {
                byte > b' '
                    && !matches!(
                        byte,
                        b'/' | b'?'
                            | b'#'
                            | b'"'
                            | b'\''
                            | b'`'
                            | b'<'
                            | b'>'
                            | b'\\'
                            | b','
                            | b';'
                            | b'('
                            | b')'
                    )
            }
            Self::Label => byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ',
        }
    }
}

/// Runs whose extent is remembered, each for one purpose.
#[derive(Debug, Clone, Copy)]
enum Memo {
    Letters,
    Word,
    Base64,
    Token,
    Pem,
    Header,
    Claims,
    Signature,
}

const MEMOS: usize = Memo::Signature as usize + 1;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    Key(Range<usize>),
    /// May become a key with the bytes that follow.
    Partial,
    None,
}

pub(super) struct Scanner<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether the bytes are all there are.
    pub(super) complete: bool,
    runs: [Range<usize>; MEMOS],
    /// The next END line of a private key for every position from the first on.
    end_line: Option<(usize, Option<Range<usize>>)>,
    #[cfg(test)]
    pub(super) steps: usize,
}

static END_LINE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?-u)-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----").ok());

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8], complete: bool) -> Self {
        Self {
            bytes,
            complete,
            runs: Default::default(),
            end_line: None,
            #[cfg(test)]
            steps: 0,
        }
    }

    /// Checks whether a key is at a prefix that extends from `start` to `end`.
    pub(super) fn check(&mut self, kind: Kind, start: usize, end: usize) -> Candidate {
        match kind {
            Kind::Run { class, min, digit } => self.token(class, start..end, min, digit),
            Kind::Aws => {
                self.fixed(start, end, 16, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            }
            Kind::Google => self.google(start, end),
            Kind::Jwt => self.jwt(start, end),
            Kind::PrivateKey => self.private_key(start, end),
            Kind::UrlPassword => self.url_password(end),
            Kind::Authorization => self.authorization(end),
            Kind::Bearer => self.token(Class::Token, end..end, 20, true),
        }
    }

    /// Returns the candidate for a mismatch at `at`: undecided at the end of bytes that continue.
    fn mismatch(&self, at: usize) -> Candidate {
        if at >= self.bytes.len() && !self.complete { Candidate::Partial } else { Candidate::None }
    }

    /// Returns the candidate for a key that ends at `key.end` at the latest.
    fn key(&self, key: Range<usize>) -> Candidate {
        if key.end >= self.bytes.len() && !self.complete { Candidate::Partial } else { Candidate::Key(key) }
    }

    fn token(&mut self, class: Class, prefix: Range<usize>, min: usize, digit: bool) -> Candidate {
        let memo = match class {
            Class::Letters => Memo::Letters,
            Class::Base64 => Memo::Base64,
            Class::Token => Memo::Token,
            _ => Memo::Word,
        };
        let end = self.run(memo, class, prefix.end);
        if end - prefix.end < min {
            return self.mismatch(end);
        }
        let window = &self.bytes[prefix.end..end.min(prefix.end + DIGIT_WINDOW)];
        if digit && !window.iter().any(u8::is_ascii_digit) {
            return if window.len() < DIGIT_WINDOW { self.mismatch(end) } else { Candidate::None };
        }
        self.key(prefix.start..end)
    }

    fn fixed(&self, start: usize, from: usize, length: usize, contains: fn(&u8) -> bool) -> Candidate {
        let rest = &self.bytes[from..self.bytes.len().min(from + length)];
        match rest.iter().position(|byte| !contains(byte)) {
            Some(_) => Candidate::None,
            None if rest.len() < length => self.mismatch(self.bytes.len()),
            None => Candidate::Key(start..from + length),
        }
    }

    /// Other than the shorter prefixes, this one occurs in encoded images; a key has an exact length.
    fn google(&mut self, start: usize, from: usize) -> Candidate {
        let end = self.run(Memo::Word, Class::Word, from);
        if end - from == 35 { self.key(start..end) } else { self.mismatch(end) }
    }

    /// A JSON web token: header, claims, signature.
    fn jwt(&mut self, start: usize, from: usize) -> Candidate {
        let header = self.run(Memo::Header, Class::Word, from);
        let Some(claims) = self.after(header, b".eyJ").filter(|_| header - from >= 8) else {
            return self.mismatch_text(header, b".eyJ");
        };
        let end = self.run(Memo::Claims, Class::Word, claims);
        let Some(signature) = self.after(end, b".").filter(|_| end - claims >= 4) else {
            return self.mismatch(end);
        };
        let end = self.run(Memo::Signature, Class::Word, signature);
        if end - signature < 4 { self.mismatch(end) } else { self.key(start..end) }
    }

    /// A private key up to its END line, or as far as it may be one if that line is missing.
    fn private_key(&mut self, start: usize, from: usize) -> Candidate {
        let window = &self.bytes[..self.bytes.len().min(from + MAX_LABEL_BYTES)];
        let label = extent(window, Class::Label, from);
        if label == self.bytes.len() {
            return self.mismatch(label);
        }
        let kind = &self.bytes[from..label];
        if !(kind.ends_with(b"PRIVATE KEY") || kind.ends_with(b"PRIVATE KEY BLOCK")) {
            return Candidate::None;
        }
        let Some(body) = self.after(label, b"-----") else { return self.mismatch_text(label, b"-----") };
        if let Some(end) = self.next_end_line(body)
            && end.start - body <= MAX_PRIVATE_KEY_BYTES
        {
            return Candidate::Key(start..end.end);
        }
        if !self.complete && self.bytes.len() - body <= MAX_PRIVATE_KEY_BYTES {
            return Candidate::Partial;
        }
        let end = self.run(Memo::Pem, Class::Pem, body);
        Candidate::Key(start..end)
    }

    /// The password of `scheme://user:password@host`, unless a placeholder stands for it.
    fn url_password(&mut self, from: usize) -> Candidate {
        let window = &self.bytes[..self.bytes.len().min(from + MAX_USERINFO_BYTES)];
        let end = extent(window, Class::UserInfo, from);
        self.step(end - from);
        if end == self.bytes.len() && !self.complete {
            return Candidate::Partial;
        }
        let info = &self.bytes[from..end];
        let Some(at) = info.iter().rposition(|byte| *byte == b'@') else { return Candidate::None };
        let Some(colon) = info[..at].iter().position(|byte| *byte == b':') else { return Candidate::None };
        let password = &info[colon + 1..at];
        match password.first() {
            None | Some(b'$' | b'{' | b'[' | b'*') => Candidate::None,
            Some(_) => Candidate::Key(from + colon + 1..from + at),
        }
    }

    /// The credentials of an `Authorization` header, also inside JSON or code.
    fn authorization(&mut self, from: usize) -> Candidate {
        let skip = |mut at: usize, most: usize, skipped: &[u8]| {
            let limit = self.bytes.len().min(at + most);
            while at < limit && skipped.contains(&self.bytes[at]) {
                at += 1;
            }
            at
        };
        let scheme = skip(from, 8, b"\"':=\\ ,");
        if scheme == from {
            return self.mismatch(scheme);
        }
        let rest = &self.bytes[scheme..];
        let schemes: [&[u8]; 3] = [b"bearer ", b"basic ", b"token "];
        for name in schemes {
            let length = name.len().min(rest.len());
            if !rest[..length].eq_ignore_ascii_case(&name[..length]) {
                continue;
            }
            if length < name.len() {
                return self.mismatch(self.bytes.len());
            }
            let token = skip(scheme + length, 4, b" ");
            return self.token(Class::Token, token..token, 8, false);
        }
        Candidate::None
    }

    /// Returns the position behind `text`, if that is at `at`.
    fn after(&self, at: usize, text: &[u8]) -> Option<usize> {
        self.bytes[at..].starts_with(text).then_some(at + text.len())
    }

    /// Returns the candidate for `text` missing at `at`.
    fn mismatch_text(&self, at: usize, text: &[u8]) -> Candidate {
        if text.starts_with(&self.bytes[at..]) { self.mismatch(self.bytes.len()) } else { Candidate::None }
    }

    /// Returns the end of the run at `from`.
    fn run(&mut self, memo: Memo, class: Class, from: usize) -> usize {
        let known = &self.runs[memo as usize];
        if known.start <= from && from < known.end {
            return known.end;
        }
        let end = extent(self.bytes, class, from);
        self.step(end - from);
        self.runs[memo as usize] = from..end;
        end
    }

    fn next_end_line(&mut self, from: usize) -> Option<Range<usize>> {
        if let Some((searched, found)) = &self.end_line
            && *searched <= from
            && found.as_ref().is_none_or(|line| line.start >= from)
        {
            return found.clone();
        }
        let line = END_LINE.as_ref().and_then(|line| line.find_at(self.bytes, from)).map(|line| line.range());
        self.step(line.as_ref().map_or(self.bytes.len(), |line| line.end) - from);
        self.end_line = Some((from, line.clone()));
        line
    }

    #[cfg(test)]
    fn step(&mut self, steps: usize) {
        self.steps += steps;
    }

    #[cfg(not(test))]
    fn step(&mut self, _: usize) {}
}

fn extent(bytes: &[u8], class: Class, from: usize) -> usize {
    bytes[from..].iter().position(|byte| !class.contains(*byte)).map_or(bytes.len(), |length| from + length)
}
