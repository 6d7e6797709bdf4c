//! The lines of `passwd(5)` and `group(5)`. Lines that are not well formed are skipped, as the C library does.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passwd<'a> {
    pub name: &'a str,
    pub uid: u32,
    pub gid: u32,
    pub home: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub name: &'a str,
    pub gid: u32,
    pub members: Vec<&'a str>,
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

pub(super) fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

pub(super) fn group(text: &str) -> impl Iterator<Item = Group<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        let members =
            fields.next().unwrap_or_default().split(',').filter(|member| !member.is_empty()).collect();
        Some(Group { name, gid, members })
    })
}
