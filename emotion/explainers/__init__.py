"""Why a network says what it says: one method a file, each from faces and classes to maps of what counted."""
