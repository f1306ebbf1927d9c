"""DICOM files made for tests: any transfer syntax, photometric interpretation and depth."""

import io
import tempfile

import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmread, uid
from pydicom.encaps import encapsulate

SYNTAXES = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "RLE": uid.RLELossless,
    "JPEG baseline": uid.JPEGBaseline8Bit,
    "JPEG lossless": uid.JPEGLosslessSV1,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG 2000": uid.JPEG2000Lossless,
}


def stored(bits: int, *, signed: bool = False, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    """Values over the whole range of the bits: a ramp with noise."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    ramp = np.linspace(low, high, shape[0] * shape[1]).reshape(shape)
    noise = np.random.default_rng(bits).normal(0, (high - low) / 50, shape)
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    values = np.clip(np.rint(ramp + noise), low, high).astype(kind)
    values[0, :2] = low, high
    return values


def dataset(values: np.ndarray, *, bits: int, photometric: str = "MONOCHROME2", **elements) -> Dataset:
    """An uncompressed radiograph with these stored values; `elements` are further DICOM keywords, or replace ours."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.PatientID = "1.2.1", "1.2.2", "someone"
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "DX", photometric, 1
    data.Rows, data.Columns = values.shape
    data.BitsAllocated = 8 * values.dtype.itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    data["PixelData"].VR = "OB" if data.BitsAllocated == 8 else "OW"
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def compressed(data: Dataset, syntax: str) -> Dataset:
    """The same radiograph in another transfer syntax."""
    target = SYNTAXES[syntax]
    if syntax == "big endian" and data.BitsAllocated == 16:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    if not target.is_compressed or syntax == "deflated":
        data.file_meta.TransferSyntaxUID = target
    elif syntax == "JPEG baseline":
        data.PixelData = encapsulate([jpeg(data)])
        data.file_meta.TransferSyntaxUID = target
    elif syntax == "JPEG lossless":
        return by_gdcm(data)
    else:
        data.compress(target, generate_instance_uid=False)
    return data


def jpeg(data: Dataset) -> bytes:
    """Its 8-bit pixels as JPEG of the best quality."""
    pixels = np.frombuffer(data.PixelData, np.uint8)[: data.Rows * data.Columns].reshape(data.Rows, data.Columns)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=100)
    return file.getvalue()


def by_gdcm(data: Dataset) -> Dataset:
    """JPEG lossless, which pydicom does not write: from file to file by GDCM."""
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/source.dcm", f"{folder}/target.dcm"
        data.save_as(source, enforce_file_format=True)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(source)
        steps = [reader.Read()]
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        steps.append(change.Change())
        writer.SetFileName(target)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not all([*steps, writer.Write()]):
            raise AssertionError("GDCM did not compress")
        return dcmread(target)


def content(data: Dataset) -> bytes:
    """The bytes of the file."""
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()
