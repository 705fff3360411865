"""A GeoPackage with labels, written without a library for it."""

from __future__ import annotations

import sqlite3
import struct

import shapely


def geopackage(path, features, *, envelope=0, field="class"):
    """Write ``(geometry, properties)`` in EPSG:32633, one property of each as a column, as other programs do."""
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_id INTEGER, organization TEXT, organization_coordsys_id INTEGER)"
        )
        db.execute("INSERT INTO gpkg_spatial_ref_sys VALUES (32633, 'EPSG', 32633)")
        db.execute("CREATE TABLE gpkg_geometry_columns (table_name TEXT, column_name TEXT, srs_id INTEGER)")
        db.execute("INSERT INTO gpkg_geometry_columns VALUES ('my labels', 'geom', 32633)")
        db.execute('CREATE TABLE "my labels" (fid INTEGER, geom BLOB, kind TEXT)'.replace("kind", field))
        for fid, (geometry, properties) in enumerate(features):
            header = struct.pack("<2sBBi", b"GP", 0, 1 | (envelope << 1), 32633) + bytes((0, 32, 48, 48, 64)[envelope])
            blob = None if geometry is None else header + shapely.to_wkb(shapely.geometry.shape(geometry))
            db.execute('INSERT INTO "my labels" VALUES (?, ?, ?)', (fid, blob, properties[field]))
    db.close()
    return path
