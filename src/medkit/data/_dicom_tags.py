"""The DICOM attributes that decide voxels, geometry and series (PS3.6)."""

from typing import NamedTuple


class Attribute(NamedTuple):
    """Name of an attribute in the dictionary, and the value representation it must have."""

    name: str
    vr: bytes


MEDIA_CLASS = 0x00020002
TRANSFER_SYNTAX = 0x00020010
CHARACTER_SET = 0x00080005
IMAGE_TYPE = 0x00080008
SOP_CLASS = 0x00080016
SOP_INSTANCE = 0x00080018
MODALITY = 0x00080060
CODE_VALUE = 0x00080100
CODING_SCHEME = 0x00080102
CODE_MEANING = 0x00080104
LONG_CODE_VALUE = 0x00080119
SERIES_DESCRIPTION = 0x0008103E
SLICE_THICKNESS = 0x00180050
ECHO_TIME = 0x00180081
ECHO_NUMBERS = 0x00180086
SPACING_BETWEEN = 0x00180088
TRIGGER_TIME = 0x00181060
IMAGER_PIXEL_SPACING = 0x00181164
EFFECTIVE_ECHO_TIME = 0x00189082
B_VALUE = 0x00189087
MR_ECHO = 0x00189114
MR_DIFFUSION = 0x00189117
SERIES = 0x0020000E
ACQUISITION_NUMBER = 0x00200012
POSITION = 0x00200032
ORIENTATION = 0x00200037
FRAME_OF_REFERENCE = 0x00200052
TEMPORAL_POSITION = 0x00200100
STACK = 0x00209056
FRAME_CONTENT = 0x00209111
PLANE_POSITION = 0x00209113
PLANE_ORIENTATION = 0x00209116
TEMPORAL_INDEX = 0x00209128
SAMPLES = 0x00280002
PHOTOMETRIC = 0x00280004
PLANAR = 0x00280006
FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
PIXEL_SPACING = 0x00280030
BITS_ALLOCATED = 0x00280100
BITS_STORED = 0x00280101
HIGH_BIT = 0x00280102
SIGNED = 0x00280103
PADDING = 0x00280120
INTERCEPT = 0x00281052
SLOPE = 0x00281053
LOSSY = 0x00282110
MODALITY_LUT = 0x00283000
PIXEL_MEASURES = 0x00289110
VALUE_TRANSFORMATION = 0x00289145
SEGMENTATION_TYPE = 0x00620001
SEGMENTS = 0x00620002
SEGMENT_CATEGORY = 0x00620003
SEGMENT_NUMBER = 0x00620004
SEGMENT_LABEL = 0x00620005
ALGORITHM_TYPE = 0x00620008
SEGMENT_OF_FRAME = 0x0062000A
REFERENCED_SEGMENT = 0x0062000B
LARGEST_FRACTION = 0x0062000E
SEGMENT_PROPERTY = 0x0062000F
FRACTIONAL_TYPE = 0x00620010
FRAME_OFFSETS = 0x3004000C
DOSE_SCALING = 0x3004000E
SHARED_GROUPS = 0x52009229
FRAME_GROUPS = 0x52009230
FLOAT_PIXELS = 0x7FE00008
DOUBLE_PIXELS = 0x7FE00009
PIXELS = 0x7FE00010

PIXEL_TAGS = frozenset({FLOAT_PIXELS, DOUBLE_PIXELS, PIXELS})

ATTRIBUTES = {
    MEDIA_CLASS: Attribute("MediaStorageSOPClassUID", b"UI"),
    TRANSFER_SYNTAX: Attribute("TransferSyntaxUID", b"UI"),
    CHARACTER_SET: Attribute("SpecificCharacterSet", b"CS"),
    IMAGE_TYPE: Attribute("ImageType", b"CS"),
    SOP_CLASS: Attribute("SOPClassUID", b"UI"),
    SOP_INSTANCE: Attribute("SOPInstanceUID", b"UI"),
    MODALITY: Attribute("Modality", b"CS"),
    CODE_VALUE: Attribute("CodeValue", b"SH"),
    CODING_SCHEME: Attribute("CodingSchemeDesignator", b"SH"),
    CODE_MEANING: Attribute("CodeMeaning", b"LO"),
    LONG_CODE_VALUE: Attribute("LongCodeValue", b"UC"),
    SERIES_DESCRIPTION: Attribute("SeriesDescription", b"LO"),
    SLICE_THICKNESS: Attribute("SliceThickness", b"DS"),
    ECHO_TIME: Attribute("EchoTime", b"DS"),
    ECHO_NUMBERS: Attribute("EchoNumbers", b"IS"),
    SPACING_BETWEEN: Attribute("SpacingBetweenSlices", b"DS"),
    TRIGGER_TIME: Attribute("TriggerTime", b"DS"),
    IMAGER_PIXEL_SPACING: Attribute("ImagerPixelSpacing", b"DS"),
    EFFECTIVE_ECHO_TIME: Attribute("EffectiveEchoTime", b"FD"),
    B_VALUE: Attribute("DiffusionBValue", b"FD"),
    MR_ECHO: Attribute("MREchoSequence", b"SQ"),
    MR_DIFFUSION: Attribute("MRDiffusionSequence", b"SQ"),
    SERIES: Attribute("SeriesInstanceUID", b"UI"),
    ACQUISITION_NUMBER: Attribute("AcquisitionNumber", b"IS"),
    POSITION: Attribute("ImagePositionPatient", b"DS"),
    ORIENTATION: Attribute("ImageOrientationPatient", b"DS"),
    FRAME_OF_REFERENCE: Attribute("FrameOfReferenceUID", b"UI"),
    TEMPORAL_POSITION: Attribute("TemporalPositionIdentifier", b"IS"),
    STACK: Attribute("StackID", b"SH"),
    FRAME_CONTENT: Attribute("FrameContentSequence", b"SQ"),
    PLANE_POSITION: Attribute("PlanePositionSequence", b"SQ"),
    PLANE_ORIENTATION: Attribute("PlaneOrientationSequence", b"SQ"),
    TEMPORAL_INDEX: Attribute("TemporalPositionIndex", b"UL"),
    SAMPLES: Attribute("SamplesPerPixel", b"US"),
    PHOTOMETRIC: Attribute("PhotometricInterpretation", b"CS"),
    PLANAR: Attribute("PlanarConfiguration", b"US"),
    FRAMES: Attribute("NumberOfFrames", b"IS"),
    ROWS: Attribute("Rows", b"US"),
    COLUMNS: Attribute("Columns", b"US"),
    PIXEL_SPACING: Attribute("PixelSpacing", b"DS"),
    BITS_ALLOCATED: Attribute("BitsAllocated", b"US"),
    BITS_STORED: Attribute("BitsStored", b"US"),
    HIGH_BIT: Attribute("HighBit", b"US"),
    SIGNED: Attribute("PixelRepresentation", b"US"),
    PADDING: Attribute("PixelPaddingValue", b"US"),  # or SS
    INTERCEPT: Attribute("RescaleIntercept", b"DS"),
    SLOPE: Attribute("RescaleSlope", b"DS"),
    LOSSY: Attribute("LossyImageCompression", b"CS"),
    MODALITY_LUT: Attribute("ModalityLUTSequence", b"SQ"),
    PIXEL_MEASURES: Attribute("PixelMeasuresSequence", b"SQ"),
    VALUE_TRANSFORMATION: Attribute("PixelValueTransformationSequence", b"SQ"),
    SEGMENTATION_TYPE: Attribute("SegmentationType", b"CS"),
    SEGMENTS: Attribute("SegmentSequence", b"SQ"),
    SEGMENT_CATEGORY: Attribute("SegmentedPropertyCategoryCodeSequence", b"SQ"),
    SEGMENT_NUMBER: Attribute("SegmentNumber", b"US"),
    SEGMENT_LABEL: Attribute("SegmentLabel", b"LO"),
    ALGORITHM_TYPE: Attribute("SegmentAlgorithmType", b"CS"),
    SEGMENT_OF_FRAME: Attribute("SegmentIdentificationSequence", b"SQ"),
    REFERENCED_SEGMENT: Attribute("ReferencedSegmentNumber", b"US"),
    LARGEST_FRACTION: Attribute("MaximumFractionalValue", b"US"),
    SEGMENT_PROPERTY: Attribute("SegmentedPropertyTypeCodeSequence", b"SQ"),
    FRACTIONAL_TYPE: Attribute("SegmentationFractionalType", b"CS"),
    FRAME_OFFSETS: Attribute("GridFrameOffsetVector", b"DS"),
    DOSE_SCALING: Attribute("DoseGridScaling", b"DS"),
    SHARED_GROUPS: Attribute("SharedFunctionalGroupsSequence", b"SQ"),
    FRAME_GROUPS: Attribute("PerFrameFunctionalGroupsSequence", b"SQ"),
}
"""What is kept of a file; everything else is passed over."""
