# finished pictures from the HDR files beside this script, in three ways
#   bash examples/tonemap.sh [FOLDER]
here=$(dirname "$0")
out=${1:-out}

# every picture with the default method, scored
attnkit tonemap "$here/hdr" --out "$out/pictures/" --score

# one picture, 16 bits, half a stop brighter
attnkit tonemap "$here/hdr/interior_view.hdr" --out "$out/interior.tif" --depth 16 --exposure 0.5

# several methods side by side on one sheet
attnkit tonemap "$here/hdr/courtyard_view.hdr" --out "$out/courtyard.png" --sheet "$out/sheet.png"
