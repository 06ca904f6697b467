"""Label schemes: which classes a run tells apart, in which order, and which of the source's classes each is made of."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emotion.errors import UserError

LabelScheme = Mapping[str, Sequence[str]]
"""Class name -> the source's classes that it takes in; a source's class that stands nowhere is left out.

An empty one, labels=source, is every class of the source as it is.
"""

LEFT_OUT = -1


def relabel(labels: NDArray[np.uint8], source_classes: Sequence[str], scheme: LabelScheme) -> NDArray[np.int64]:
    """Labels (N,) of the source as labels of the scheme, LEFT_OUT where it has no place for them.

    Raises:
        UserError: the scheme names a class that the source does not have, or names one twice.
    """
    table = np.full(len(source_classes), LEFT_OUT, np.int64)
    for index, (name, members) in enumerate(scheme.items()):
        for member in members:
            if member not in source_classes:
                raise UserError(
                    f"Label scheme: {name} takes in {member!r}, which the data does not have; "
                    f"its classes are {', '.join(source_classes)}. labels=source takes them as they are; "
                    f"labels=NAME is another scheme."
                )
            if table[source_classes.index(member)] != LEFT_OUT:
                raise UserError(f"Label scheme: {member!r} stands under two classes, one of them {name}.")
            table[source_classes.index(member)] = index
    return table[labels]
