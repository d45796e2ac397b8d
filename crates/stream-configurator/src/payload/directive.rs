//! Transformations and mappings as one list: the input, the operation and the target of each.

use super::{AttributeMapping, Format, Payload, Transformation, TransformationType};
use crate::field::FieldPath;

/// A transformation or mapping.
#[derive(Clone, Debug)]
pub(crate) struct Directive<'a> {
    /// The JSON pointer of the directive.
    pub pointer: String,
    /// The member with the source.
    pub source_member: &'static str,
    /// The member with the target.
    pub target_member: &'static str,
    /// The source as written.
    pub source: &'a str,
    /// The target as written.
    pub target: &'a str,
    /// The operation; `None` if it is missing, which is reported elsewhere.
    pub makes: Option<Makes<'a>>,
}

/// The operation on a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Makes<'a> {
    /// Copies the value.
    Copy,
    /// Takes the value at this path from each entry of a list.
    Entries(FieldPath<'a>),
    /// Writes an ISO 8601 time.
    Iso8601,
}

impl Payload {
    /// Returns all directives, transformations first.
    pub(crate) fn directives(&self) -> impl Iterator<Item = Directive<'_>> {
        directives("/payload", &self.transformations, &self.attribute_mappings)
    }
}

/// Returns the directives of the object at `place`, a JSON pointer, transformations first.
pub(crate) fn directives<'a>(
    place: &str,
    transformations: &'a [Transformation],
    mappings: &'a [AttributeMapping],
) -> impl Iterator<Item = Directive<'a>> {
    let transformations = transformations.iter().enumerate();
    let mappings = mappings.iter().enumerate();
    transformations
        .map(move |one| Directive::of_transformation(place, one))
        .chain(mappings.map(move |one| Directive::of_mapping(place, one)))
}

impl<'a> Directive<'a> {
    fn of_transformation(place: &str, (index, one): (usize, &'a Transformation)) -> Self {
        Self {
            pointer: format!("{place}/transformations/{index}"),
            source_member: "sourceField",
            target_member: "targetField",
            source: &one.source_field,
            target: &one.target_field,
            makes: one.makes(),
        }
    }

    fn of_mapping(place: &str, (index, one): (usize, &'a AttributeMapping)) -> Self {
        Self {
            pointer: format!("{place}/attributeMappings/{index}"),
            source_member: "source",
            target_member: "target",
            source: &one.source,
            target: &one.target,
            makes: Some(Makes::Copy),
        }
    }
}

impl Transformation {
    fn makes(&self) -> Option<Makes<'_>> {
        match self.kind {
            TransformationType::Direct => Some(Makes::Copy),
            TransformationType::Extract => FieldPath::inside_entries(self.path.as_deref()?).map(Makes::Entries),
            TransformationType::Transform => match self.format? {
                Format::Iso8601 => Some(Makes::Iso8601),
                Format::Unknown => None,
            },
            TransformationType::Unknown => None,
        }
    }
}
