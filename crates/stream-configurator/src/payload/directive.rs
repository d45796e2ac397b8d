//! Transformations and mappings as one list: the input, the operation and the target of each.

use super::{AttributeMapping, Format, Payload, Transformation, TransformationType};
use crate::field::FieldPath;

/// One transformation or mapping.
#[derive(Clone, Debug)]
pub(crate) struct Directive<'a> {
    /// Its own JSON pointer.
    pub pointer: String,
    /// The member that says what it takes.
    pub source_member: &'static str,
    /// The member that says where it puts something.
    pub target_member: &'static str,
    /// As it was written.
    pub source: &'a str,
    /// As it was written.
    pub target: &'a str,
    /// `None` if the directive does not say; that is a violation reported elsewhere.
    pub makes: Option<Makes<'a>>,
}

/// What is made of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Makes<'a> {
    /// The same.
    Copy,
    /// What is at this path in each entry of a list.
    Entries(FieldPath<'a>),
    /// An ISO 8601 time.
    Iso8601,
}

impl Payload {
    /// All directives, transformations first.
    pub(crate) fn directives(&self) -> impl Iterator<Item = Directive<'_>> {
        directives("/payload", &self.transformations, &self.attribute_mappings)
    }
}

/// The directives of the object at `place`, a JSON pointer: transformations first.
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
