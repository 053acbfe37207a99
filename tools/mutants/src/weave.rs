//! Rewrites one source file so that each of its mutants is a branch.
//!
//! A mutant changes a few words of some expression, its host. The host becomes
//! `(if crate::mutant(7) { changed } else if crate::mutant(8) { changed } else { as it was })`. Only one
//! mutant is alive at a time, so a changed host holds its operands as they stood, while what is left as it
//! was goes on to be woven. Two kinds have no host: the body of a function begins with a return of
//! the other value, and a match arm gets a guard. So everything is an insertion, and lines keep their numbers.
//!
//! A changed host stands between the comments `<7` and `7>`: errors of the compiler inside tell which
//! mutant does not compile.

use std::collections::HashMap;
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::list::{LeftOut, Mutant, Place, Result};

/// Where a mutant goes.
#[derive(Clone)]
enum Host {
    /// An expression that is written again, changed.
    Expr(Range<usize>),
    /// Behind the opening brace of a function.
    Body(usize),
    /// A match arm: its guard, or the end of its pattern.
    Guard(Range<usize>),
    Pattern(usize),
    /// A chain of `&&` with `let` in it: takes no `||`, and no block may enclose it.
    Chain,
}

/// The file with all mutants that are not left out; those that cannot be branches are marked.
pub fn weave(text: &str, mutants: &mut [Mutant]) -> Result<String> {
    let mut finder = Finder::default();
    finder.visit_file(&syn::parse_file(text)?);
    let starts: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let byte =
        |place: Place| starts.get(place.line - 1).map_or(0, |start| start + place.column - 1);
    let mut exprs: HashMap<(usize, usize), Vec<(String, usize)>> = HashMap::new();
    let mut insertions = Vec::new();
    for mutant in mutants.iter_mut().filter(|mutant| mutant.left_out.is_none()) {
        let (from, until) = (byte(mutant.span.start), byte(mutant.span.end));
        let host = match mutant.genre.as_str() {
            "FnValue" => finder.body_around(from),
            genre => finder.hosts.get(&(key(genre), from)).cloned(),
        };
        let (id, new) = (mutant.id, mutant.replacement.as_str());
        match host {
            Some(Host::Chain) if new == "||" => mutant.left_out = Some(LeftOut::Unviable),
            None | Some(Host::Chain) => mutant.left_out = Some(LeftOut::OwnBuild),
            Some(Host::Expr(host)) => {
                let (before, behind) = (&text[host.start..from], &text[until..host.end]);
                let behind = match new {
                    "" => behind.strip_prefix(',').unwrap_or(behind),
                    _ => behind,
                };
                let changed = format!("{before}{new}{behind}");
                exprs.entry((host.start, host.end)).or_default().push((changed, id));
            }
            Some(Host::Body(at)) => {
                let text =
                    format!(" if crate::mutant({id}) {{ /*<{id}*/ return {new}; /*{id}>*/ }}");
                insertions.push(((at, 1, 0), text));
            }
            Some(Host::Guard(guard)) => {
                let text = format!("/*<{id}*/ !crate::mutant({id}) /*{id}>*/ && (");
                insertions.push(((guard.start, 1, 0), text));
                insertions.push(((guard.end, 0, usize::MAX), ")".to_owned()));
            }
            Some(Host::Pattern(at)) => {
                let text = format!(" if /*<{id}*/ !crate::mutant({id}) /*{id}>*/");
                insertions.push(((at, 1, 0), text));
            }
        }
    }
    for ((start, end), changes) in exprs {
        let branches = changes.iter().map(|(changed, id)| {
            format!("if crate::mutant({id}) {{ /*<{id}*/{changed}/*{id}>*/ }} else ")
        });
        let text = format!("({}{{ ", branches.collect::<String>());
        // Of hosts that begin at one place the longest comes first, of those that end there the shortest.
        insertions.push(((start, 2, usize::MAX - (end - start)), text));
        insertions.push(((end, 0, end - start), " })".to_owned()));
    }
    insertions.sort();
    let mut woven = String::new();
    let mut done = 0;
    for ((at, ..), insertion) in insertions {
        woven.push_str(&text[done..at]);
        woven.push_str(&insertion);
        done = at;
    }
    woven.push_str(&text[done..]);
    Ok(woven)
}

/// Genres whose spans may begin at one place are told apart.
fn key(genre: &str) -> u8 {
    match genre {
        "MatchArm" => 1,
        "StructField" => 2,
        "MatchArmGuard" => 3,
        _ => 0,
    }
}

/// Finds everything in a file that can be a host, by the start of what a mutant replaces.
#[derive(Default)]
struct Finder {
    hosts: HashMap<(u8, usize), Host>,
    bodies: Vec<Range<usize>>,
    /// How many constants are around: no branches there.
    constants: usize,
}

impl Finder {
    fn add(&mut self, genre: &str, at: usize, host: Host) {
        if self.constants == 0 {
            self.hosts.insert((key(genre), at), host);
        }
    }

    fn body_around(&self, at: usize) -> Option<Host> {
        let around = self.bodies.iter().filter(|body| body.contains(&at));
        Some(Host::Body(around.min_by_key(|body| body.len())?.start + 1))
    }

    fn function(
        &mut self,
        signature: &syn::Signature,
        block: &syn::Block,
        go_on: impl FnOnce(&mut Finder),
    ) {
        let constant = usize::from(signature.constness.is_some());
        self.constants += constant;
        if self.constants == 0 {
            self.bodies.push(block.span().byte_range());
        }
        go_on(self);
        self.constants -= constant;
    }

    fn constant(&mut self, go_on: impl FnOnce(&mut Finder)) {
        self.constants += 1;
        go_on(self);
        self.constants -= 1;
    }
}

/// Whether `let` stands in a chain of `&&`.
fn binds(expr: &syn::Expr) -> bool {
    match expr {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_expr(&mut self, expr: &'ast syn::Expr) {
        let host = expr.span().byte_range();
        match expr {
            syn::Expr::Binary(binary) => {
                let host = if binds(expr) { Host::Chain } else { Host::Expr(host) };
                self.add("BinaryOperator", binary.op.span().byte_range().start, host);
            }
            syn::Expr::Unary(unary) => {
                self.add("UnaryOperator", unary.op.span().byte_range().start, Host::Expr(host));
            }
            syn::Expr::Struct(literal) => {
                for field in &literal.fields {
                    let at = field.span().byte_range().start;
                    self.add("StructField", at, Host::Expr(host.clone()));
                }
            }
            _ => {}
        }
        visit::visit_expr(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let pattern = arm.pat.span().byte_range();
        match &arm.guard {
            Some((_, guard)) if !binds(guard) => {
                let guard = guard.span().byte_range();
                self.add("MatchArmGuard", guard.start, Host::Expr(guard.clone()));
                self.add("MatchArm", pattern.start, Host::Guard(guard));
            }
            Some(_) => {}
            None => self.add("MatchArm", pattern.start, Host::Pattern(pattern.end)),
        }
        visit::visit_arm(self, arm);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block, |f| visit::visit_item_fn(f, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block, |f| visit::visit_impl_item_fn(f, item));
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant(|f| visit::visit_item_const(f, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant(|f| visit::visit_item_static(f, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(|f| visit::visit_impl_item_const(f, item));
    }

    fn visit_expr_const(&mut self, block: &'ast syn::ExprConst) {
        self.constant(|f| visit::visit_expr_const(f, block));
    }

    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        self.constant(|f| visit::visit_type_array(f, array));
    }

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
        self.constant(|f| f.visit_expr(&repeat.len));
    }
}
