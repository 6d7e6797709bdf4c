//! Netlink attributes, as nftables wants them: numbers in network byte order, nesting marked.

/// `NLA_F_NESTED`
const NESTED: u16 = 1 << 15;

/// Attributes one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, value);
        self
    }

    /// Adds a text with its NUL.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds attributes inside an attribute.
    #[must_use]
    pub fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// Takes attributes that are encoded already.
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The encoded attributes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attributes are far smaller than 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_their_length_is_not() {
        let attributes = Attributes::default().text(1, "ab").number(2, 3);
        let mut expected = Vec::new();
        expected.extend(7u16.to_ne_bytes());
        expected.extend(1u16.to_ne_bytes());
        expected.extend(b"ab\0\0");
        expected.extend(8u16.to_ne_bytes());
        expected.extend(2u16.to_ne_bytes());
        expected.extend([0, 0, 0, 3]);
        assert_eq!(attributes.as_bytes(), expected);
    }

    #[test]
    fn nesting_is_marked() {
        let outer = Attributes::default().nested(4, &Attributes::default().number(1, 0));
        assert_eq!(outer.as_bytes()[2..4], (4 | NESTED).to_ne_bytes());
        assert_eq!(outer.as_bytes().len(), 12);
    }
}
