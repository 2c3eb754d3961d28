//! pg_ident.conf: which system users may be which role (hba.c: `parse_ident_line`, `check_ident_usermap`).

use std::collections::BTreeSet;
use std::path::Path;

use crate::Server;
use crate::check::{Doubt, Truth, World, cut};
use crate::everyone::Name;
use crate::expression::{Captured, Expression, Unfit};
use crate::files::Files;
use crate::hba::{Pattern, compiled, lines};
use crate::token::{At, Problem, Token};

/// A pg_ident.conf with everything that it includes.
#[derive(Debug, Clone, Default)]
pub struct Ident {
    pub lines: Vec<IdentLine>,
    /// With any of these the file is not loaded; the server goes on by the maps that it had, or starts without any.
    pub errors: Vec<Problem>,
    pub doubts: Vec<Problem>,
}

/// One line.
#[derive(Debug, Clone)]
pub struct IdentLine {
    pub at: At,
    pub raw: Vec<u8>,
    pub map: Vec<u8>,
    pub user: Token,
    /// In quotes as well, and on every major.
    pub user_expression: Option<Result<Expression, Unfit>>,
    /// From 16 on it may be a keyword, a group or an expression.
    pub role: Pattern,
    literal_role: bool,
}

/// Whether a system user may be a role.
#[derive(Debug, Clone)]
pub enum Admission<'a> {
    /// No map is named: exactly the user of the role's name is admitted.
    ByName(bool),
    /// By this line.
    Line(&'a IdentLine),
    /// By no line of the map.
    NoLine,
    /// This line asks for a part of the system user that its expression does not mark; no further one is looked at.
    Broken(&'a IdentLine),
    Undecided {
        line: &'a IdentLine,
        doubt: Doubt,
    },
}

impl Ident {
    /// Reads the file and what it includes.
    pub fn read(path: &Path, files: &dyn Files, server: &Server) -> Ident {
        let mut ident = Ident::default();
        let lines = match lines(path, files, server, &mut ident.errors) {
            Ok(lines) => lines,
            Err(problem) => {
                ident.errors.push(problem);
                return ident;
            }
        };
        for line in lines {
            let mut doubt = None;
            match IdentLine::read(&line.fields, server, &mut doubt) {
                Ok((map, user, user_expression, role)) => {
                    ident.doubts.extend(doubt.map(|message| Problem {
                        at: line.at.clone(),
                        message,
                    }));
                    ident.lines.push(IdentLine {
                        at: line.at,
                        raw: line.raw,
                        map,
                        user,
                        user_expression,
                        role,
                        literal_role: !server.major.has_includes_and_expressions(),
                    });
                }
                Err(message) => ident.errors.push(Problem { at: line.at, message }),
            }
        }
        ident
    }

    /// Whether a server takes the file; an empty one it does.
    pub fn loads(&self) -> Truth {
        match (self.errors.as_slice(), self.doubts.as_slice()) {
            ([], []) => Truth::Yes,
            ([], [doubt, ..]) => Truth::unknown(&doubt.to_string()),
            ([_, ..], _) => Truth::No,
        }
    }

    /// Whether the system user (a certificate's name, the user at the other end of a Unix socket) may log in as `role`
    /// under `map`. Case counts: it does not for Kerberos with `krb_caseins_users`, which is not judged here.
    pub fn admits(
        &self,
        map: Option<&[u8]>,
        system_user: &[u8],
        role: &[u8],
        world: &dyn World,
    ) -> Admission<'_> {
        let role = cut(role);
        let Some(map) = map.filter(|map| !map.is_empty()) else {
            return Admission::ByName(system_user == role);
        };
        for line in self.lines.iter().filter(|line| line.map == map) {
            match line.admits(system_user, role, world) {
                Ok(Truth::No) => {}
                Ok(Truth::Yes) => return Admission::Line(line),
                Ok(Truth::Unknown(doubt)) => return Admission::Undecided { line, doubt },
                Err(NoGroup) => return Admission::Broken(line),
            }
        }
        Admission::NoLine
    }
}

/// Who may be a role: a user of the operating system, or who has a certificate of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// Whatever the name is.
    Anybody,
    Named(Vec<u8>),
    /// Whose name is the role's.
    LikeRole,
    /// Whose name this expression lets be that role.
    Matching(Vec<u8>),
}

impl Ident {
    /// All who may be `role` under `map`, and whether that is certain. Expressions stand for themselves, and for those of
    /// `names` that they let in.
    pub fn holders(
        &self,
        map: Option<&[u8]>,
        role: &Name,
        names: &[Vec<u8>],
        world: &dyn World,
    ) -> Vec<(Holder, bool)> {
        let Some(map) = map.filter(|map| !map.is_empty()) else {
            return vec![match role {
                Name::Named(role) => (Holder::Named(role.clone()), true),
                Name::Other => (Holder::LikeRole, true),
            }];
        };
        let lines = || self.lines.iter().filter(|line| line.map == map);
        let literal = lines().filter(|line| line.user_expression.is_none());
        let literal = literal.map(|line| &line.user.text);
        let asked: BTreeSet<&Vec<u8>> = literal.chain(names).collect();
        let mut all: Vec<(Holder, bool)> = Vec::new();
        for name in asked {
            let truth = match role {
                Name::Named(role) => match self.admits(Some(map), name, role, world) {
                    Admission::Line(_) | Admission::ByName(true) => Some(true),
                    Admission::Undecided { .. } => Some(false),
                    Admission::ByName(false) | Admission::NoLine | Admission::Broken(_) => None,
                },
                Name::Other => lines()
                    .find(|line| {
                        line.user_expression.is_none() && line.user.text == *name && line.is_for_all()
                    })
                    .map(|_| true),
            };
            all.extend(truth.map(|certain| (Holder::Named(name.clone()), certain)));
        }
        let expressions = lines().filter(|line| line.user_expression.is_some());
        let mut expressions: Vec<(Holder, bool)> = expressions
            .filter_map(|line| {
                let certain = match (line.role.token.text.windows(2).any(|w| w == b"\\1"), role) {
                    (true, _) => true,
                    (false, Name::Other) => line.is_for_all().then_some(true)?,
                    (false, Name::Named(role)) => match line.may_be(&line.role, role, world) {
                        Truth::Yes => true,
                        Truth::Unknown(_) => false,
                        Truth::No => return None,
                    },
                };
                Some((Holder::Matching(line.user.text.clone()), certain))
            })
            .collect();
        expressions.sort();
        expressions.dedup();
        all.extend(expressions);
        all
    }
}

struct NoGroup;

type Parts = (Vec<u8>, Token, Option<Result<Expression, Unfit>>, Pattern);

impl IdentLine {
    fn read(fields: &[Vec<Token>], server: &Server, doubt: &mut Option<String>) -> Result<Parts, String> {
        let mut fields = fields.iter();
        let mut one = || match fields.next().map(Vec::as_slice) {
            Some([token]) => Ok(token.clone()),
            Some(_) => Err("multiple values in ident field".to_owned()),
            None => Err("missing entry at end of line".to_owned()),
        };
        // Further fields are not looked at.
        let (map, user, role) = (one()?, one()?, one()?);
        let user_expression = compiled(&user, doubt)?;
        let expression = match server.major.has_includes_and_expressions() {
            true => compiled(&role, doubt)?,
            false => None,
        };
        let role = Pattern {
            token: role,
            expression,
        };
        Ok((map.text, user, user_expression, role))
    }

    fn admits(&self, system_user: &[u8], role: &[u8], world: &dyn World) -> Result<Truth, NoGroup> {
        let Some(expression) = &self.user_expression else {
            return Ok(match self.user.text == system_user {
                true => self.may_be(&self.role, role, world),
                false => Truth::No,
            });
        };
        let expression = match expression {
            Ok(expression) => expression,
            Err(Unfit::Beyond(why) | Unfit::Invalid(why)) => {
                return Ok(Truth::unknown(&format!(
                    "a regular expression that is not understood here: {why}"
                )));
            }
        };
        if !expression.is_match(system_user) {
            return Ok(Truth::No);
        }
        let text = &self.role.token.text;
        let special = !self.literal_role && (self.role.group().is_some() || self.role.expression.is_some());
        let Some(at) = text.windows(2).position(|w| w == b"\\1").filter(|_| !special) else {
            return Ok(self.may_be(&self.role, role, world));
        };
        match expression.capture(system_user) {
            Captured::NoMatch => Ok(Truth::No),
            Captured::NoGroup => Err(NoGroup),
            Captured::Unknown => Ok(Truth::unknown("which part of the system user \\1 stands for")),
            // What comes out is a name, whatever it looks like.
            Captured::Text(part) => {
                let expanded = [&text[..at], &part, &text[at + 2..]].concat();
                Ok(Truth::of(expanded == role))
            }
        }
    }

    /// Whatever the role is.
    fn is_for_all(&self) -> bool {
        !self.literal_role && self.role.keyword() == Some(b"all")
    }

    fn may_be(&self, pattern: &Pattern, role: &[u8], world: &dyn World) -> Truth {
        match self.literal_role {
            true => Truth::of(pattern.token.text == role),
            false => pattern.matches_role(role, world),
        }
    }
}
