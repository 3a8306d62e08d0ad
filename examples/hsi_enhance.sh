# a dark hyperspectral scan made bright, looked at, and compared with the bright scan that it was made of
#   bash examples/hsi_enhance.sh [FOLDER]
here=$(dirname "$0")
out=${1:-out}

# the default method; the scan is 12 bits and was exposed for a fifteenth of the time
attnkit hsi-enhance "$here/hsi/outcrop.hdr" --out "$out/outcrop.hdr" --scale 4095 --gain 15 \
  --preview "$out/outcrop.png" --plot-spectra 20,12 --plot "$out/outcrop_spectra.png"

# how near it comes: the two files have different units, so each is scaled by one best factor
attnkit eval hsi-enhance "$out/outcrop.hdr" --ref "$here/hsi/reference/outcrop.hdr" --best-scale

# a classical method beside it, half of the bands, as a NumPy array
attnkit hsi-enhance "$here/hsi/outcrop.hdr" --out "$out/outcrop.npy" --method mnf --bands 0:225
