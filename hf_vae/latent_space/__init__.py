"""
What can be done with codes: reconstruct, sample, interpolate, calculate, fill in, compare, transfer a form, write the text of a
given vector, give a text what it is to be like, and fit a prior to them.

Every function takes a model and its processor, runs in evaluation mode without gradients, and leaves the model's training flags as
they were. They run in one process: if several run them, each does all of the decoding.
"""

from ..flow_prior import FlowPrior
from ..prior import GaussianMixturePrior
from .arithmetic import arithmetic, attribute_vector, move
from .attributes import fit_attribute
from .codes import LatentTexts, decode_latents, encode_texts
from .control import EditedTexts, edit
from .flow_fit import fit_flow_prior, prior_gain
from .imputation import Imputation, impute
from .interpolation import Interpolation, interpolate, interpolate_latents, smoothness, word_edit_distance
from .inversion import InvertedTexts, encode_embeddings, invert
from .neighbours import Neighbours, nearest_neighbours
from .priors import fit_prior, prior_log_densities
from .reconstruction import reconstruct, sample_prior
from .revision import RevisedTexts, revise
from .smallest_move import smallest_move
from .transfer import transfer

__all__ = [
    "EditedTexts",
    "FlowPrior",
    "GaussianMixturePrior",
    "Imputation",
    "Interpolation",
    "InvertedTexts",
    "LatentTexts",
    "Neighbours",
    "RevisedTexts",
    "arithmetic",
    "attribute_vector",
    "decode_latents",
    "edit",
    "encode_embeddings",
    "encode_texts",
    "fit_attribute",
    "fit_flow_prior",
    "fit_prior",
    "impute",
    "interpolate",
    "interpolate_latents",
    "invert",
    "move",
    "nearest_neighbours",
    "prior_gain",
    "prior_log_densities",
    "reconstruct",
    "revise",
    "sample_prior",
    "smallest_move",
    "smoothness",
    "transfer",
    "word_edit_distance",
]
